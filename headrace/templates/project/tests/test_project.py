"""What must hold of every dataset of a project: the checks come with Headrace."""

from headrace.testing import ProjectTests


class TestProject(ProjectTests):
    """Declarations load and fit together; what is generated from them is up to date."""
