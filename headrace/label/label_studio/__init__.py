"""Label Studio through its SDK: every task sent exactly once, annotations read as far as they changed."""

from headrace.extras import require_extra

require_extra("labeling", "Label Studio")  # every module below imports the SDK
