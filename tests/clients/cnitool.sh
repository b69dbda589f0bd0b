#!/bin/sh
# Builds cnitool, the CNI project's own client, from the source package that the distribution has of it.
#
#     tests/clients/cnitool.sh PROGRAM
#
# The -dev package has the library and not the tool. Needs: golang-go, and an apt that knows the distribution's packages:
# where its binary packages come from there are the sources, too. Nothing of the machine's apt is changed.
set -eu

program=$(realpath -m "$1")
[ ! -x "$program" ] || exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/source" "$work/go/src/github.com/containernetworking" "$(dirname "$program")"

. /etc/os-release
keys=/usr/share/keyrings/$ID-archive-keyring.gpg
[ -e "$keys" ] && signed="[signed-by=$keys] " || signed=
apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' |
	awk -v release="$VERSION_CODENAME" -v signed="$signed" \
		'$2 == release && ($3 == "main" || $3 == "universe") { print "deb-src " signed $0 }' |
	sort -u >"$work/sources.list"
[ -s "$work/sources.list" ] || { echo "cnitool.sh: apt knows no packages of this release; run: apt-get update" >&2; exit 1; }

fetch() {
	apt-get -q -q -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$work/lists" -o Dir::Cache::srcpkgcache= -o Dir::Cache::pkgcache= \
		-o APT::Sandbox::User=root "$@"
}
cd "$work/source"
fetch update
fetch source --download-only golang-github-appc-cni
mkdir tree
tar -xf ./*.orig.tar.* -C tree --strip-components=1
mv tree "$work/go/src/github.com/containernetworking/cni"

# No modules: they would be fetched. cnitool needs nothing but the package itself and Go's own library.
CGO_ENABLED=0 GO111MODULE=off GOPATH="$work/go" GOCACHE="$work/cache" GOFLAGS= \
	go build -o "$program.new" github.com/containernetworking/cni/cnitool
mv "$program.new" "$program"
