"""Tests that hold for every project, for pytest.

```python
from headrace.testing import ProjectTests


class TestProject(ProjectTests):
    \"\"\"What must hold of every dataset of this project.\"\"\"
```
"""

import pytest

pytest.register_assert_rewrite("headrace.testing.project_tests")

from headrace.testing.project_tests import ProjectTests  # noqa: E402  after its asserts are known to be tests

__all__ = ["ProjectTests"]
