"""Images: an OCI image layout on disk, layers that overlayfs can use, and recipes that need no registry.

Reading order: reference (what a name means), layout (find an image: on the path of every run), tree and layers
(unpack and pack archives by file descriptor), writer (the only way anything gets into the store), recipes.
"""
