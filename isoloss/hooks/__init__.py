"""What joins a training to its recorder: plain PyTorch here, and a module for each training library.

`isoloss.hooks.hugging_face`, `isoloss.hooks.lightning` and `isoloss.hooks.accelerate` each import their own
library alone.
"""

from isoloss.hooks.plain import Watch, watch

__all__ = ["Watch", "watch"]
