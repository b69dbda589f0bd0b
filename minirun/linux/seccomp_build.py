"""Builds ``minirun.linux._seccomp``: the few functions of libseccomp that compile a filter, in cffi's API mode."""

from __future__ import annotations

from cffi import FFI

DECLARATIONS = """
    typedef void *scmp_filter_ctx;
    typedef uint64_t scmp_datum_t;
    enum scmp_compare {
        SCMP_CMP_NE, SCMP_CMP_LT, SCMP_CMP_LE, SCMP_CMP_EQ, SCMP_CMP_GE, SCMP_CMP_GT, SCMP_CMP_MASKED_EQ, ...
    };
    struct scmp_arg_cmp {
        unsigned int arg;
        enum scmp_compare op;
        scmp_datum_t datum_a, datum_b;
        ...;
    };
    enum scmp_filter_attr { SCMP_FLTATR_ACT_BADARCH, SCMP_FLTATR_CTL_OPTIMIZE, ... };

    scmp_filter_ctx seccomp_init(uint32_t default_action);
    void seccomp_release(scmp_filter_ctx context);
    int seccomp_attr_set(scmp_filter_ctx context, enum scmp_filter_attr attribute, uint32_t value);
    uint32_t seccomp_arch_native(void);
    uint32_t seccomp_arch_resolve_name(const char *name);
    int seccomp_arch_exist(const scmp_filter_ctx context, uint32_t architecture);
    int seccomp_arch_add(scmp_filter_ctx context, uint32_t architecture);
    int seccomp_syscall_resolve_name_arch(uint32_t architecture, const char *name);
    int seccomp_rule_add_array(scmp_filter_ctx context, uint32_t action, int syscall, unsigned int count,
                               const struct scmp_arg_cmp *conditions);
    int seccomp_export_bpf(const scmp_filter_ctx context, int fd);
"""

ffibuilder = FFI()
ffibuilder.cdef(DECLARATIONS)
ffibuilder.set_source("minirun.linux._seccomp", "#include <seccomp.h>", libraries=["seccomp"])
