"""What lies in examples/ runs, prints its figures and draws its picture."""

import pytest

from tests.example_scripts import FOLDER, draws, scripts


@pytest.mark.parametrize("name", scripts())
def test_it_draws_its_picture(name, tmp_path):
    draws(name, tmp_path)


def test_the_readme_of_the_examples_names_each():
    readme = (FOLDER / "README.md").read_text()
    for path in FOLDER.glob("*.py"):
        assert f"`{path.name}`" in readme
