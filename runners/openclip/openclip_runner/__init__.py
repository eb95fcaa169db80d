"""OpenCLIP as a runner of sweep: `open_clip_train` trains, this package speaks the protocol."""

NAME = "openclip"
# Grows when the same job would give another result. The version of open_clip stands behind it: see `identity`.
REVISION = "1"
