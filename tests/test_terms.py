"""Terms are found by name, and a term without its branch, or its line in the table, is noticed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastelbo
from fastelbo import _builds

#: The sources, which an installed wheel leaves out.
KERNELS = Path(__file__).parents[1] / "fastelbo" / "_kernels"
#: The terms of each family that has a table of them.
FAMILIES = {"likelihood": "likelihoods", "discrete": "discrete"}


def evaluate(family, name, parameters, gradients=None):
    x = np.ones((2, 3))
    parameters = tuple(np.full((2, 3), 0.5) for _ in range(parameters))
    return _builds.kernels(family).evaluate(
        name, x, None, False, parameters, gradients, 1.0, 1.0, 1.0, 0.0, 1, *(None,) * 4, 1
    )


def members(terms):
    """The fused type of a file of terms: its members' names, less "Term"."""
    text = (KERNELS / "terms" / f"{terms}.pxd").read_text()
    return re.findall(r"^    (\w+)Term$", re.search(r"fused term:\n((?: .*\n)+)", text)[1], re.M)


@pytest.mark.parametrize(("family", "terms"), FAMILIES.items())
def test_every_term_is_in_the_table(family, terms):
    assert list(_builds.kernels(family).TERMS) == members(terms)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_term_of_the_table_computes(family):
    for name, term in _builds.kernels(family).TERMS.items():
        gradients = tuple(np.full((2, 3), -7.0) for _ in range(term.gradients))
        value, *_ = evaluate(family, name, term.parameters, gradients)
        assert value != 0, name
        assert all((g != -7).all() for g in gradients), name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["Weibul", "", None])
def test_an_unknown_term_is_refused(family, name):
    gradient = np.full((2, 3), -7.0)
    known = ", ".join(_builds.kernels(family).TERMS)
    with pytest.raises(ValueError, match=f"{name!r}.*{known}"):
        evaluate(family, name, 1, (gradient,))
    assert (gradient == -7).all()


def test_an_unknown_term_of_a_likelihood_is_refused(monkeypatch):
    monkeypatch.setattr(fastelbo.Bernoulli, "_term", "Bernouli")
    with pytest.raises(ValueError, match="'Bernouli'"):
        fastelbo.Bernoulli().log_prob([[1.0]], [[0.0]])


def test_a_term_with_other_parameters_is_refused():
    with pytest.raises(ValueError, match=r"StudentT takes 4 .* got 3 and 0"):
        evaluate("likelihood", "StudentT", 3)
    with pytest.raises(ValueError, match="got 2 and 1"):
        evaluate("likelihood", "GaussianLogScale", 2, (np.empty((2, 3)),))


def test_more_axes_than_a_pass_can_stride_over_are_refused():
    """Which `_arrays` copies first, so that no user meets this."""
    x = np.ones((3,) * 10)[(slice(None, None, 2),) * 10]
    outputs = np.ones((2,) * 10)
    with pytest.raises(ValueError, match="8 strided axes"):
        _builds.kernels("likelihood").evaluate(
            "SquaredError", x, None, False, (outputs,), None, *(1.0,) * 3, 0.0, 1, *(None,) * 4, 1
        )
    with pytest.raises(ValueError, match="8 strided axes"):
        _builds.kernels("classes").categorical(
            x, None, False, np.ones((*x.shape, 2)), None, 1.0, 1, None, None, 1
        )
    expected = fastelbo.SquaredError().log_prob(x.copy(), outputs + 1)
    assert fastelbo.SquaredError().log_prob(x, outputs + 1) == expected


#: What a forgotten term may lack, and a call that does not compile then.
LACKS = {
    "likelihoods": ("log_prob", "parameters_of", "gradients_of"),
    "discrete": ("log_prob", "outside", "parameters_of", "gradients_of"),
}
CALLS = {
    "log_prob": "terms.log_prob({tag}, 0.0, 0.0, 0.0, 0.0, 0.0, &g, &g, &g, &g)",
    "outside": "terms.outside({tag}, 0.0, 0.0, 0.0, 0.0, 0.0)",
    "parameters_of": "terms.parameters_of({tag})",
    "gradients_of": "terms.gradients_of({tag})",
}


@pytest.mark.parametrize("terms", LACKS)
def test_a_forgotten_branch_does_not_compile(tmp_path, terms):
    """Each term that lacks something is named by the compiler, in front of any other error."""
    pytest.importorskip("Cython")
    kernels = tmp_path / "fastelbo" / "_kernels"
    shutil.copytree(KERNELS / "terms", kernels / "terms")
    for package in (kernels, kernels.parent):
        (package / "__init__.py").touch()
    path = kernels / "terms" / f"{terms}.pxd"
    tags, names = "", ""
    use = f"from fastelbo._kernels.terms cimport {terms} as terms\ndef use():\n    cdef double g\n"
    for lacks in LACKS[terms]:
        name = f"No_{lacks}"
        fields = [f for f in ("parameters", "gradients") if f"{f}_of" != lacks]
        tags += f"ctypedef struct {name}:\n" + "".join(f"    char[1] {f}\n" for f in fields)
        names += f"    {name}\n"
        use += "    " + CALLS[lacks].format(tag=f"<const terms.{name}*>NULL") + "\n"
    head = "ctypedef fused term:\n"
    path.write_text(path.read_text().replace(head, tags + head + names))
    (tmp_path / "use.pyx").write_text(use)
    command = [sys.executable, "-m", "cython", "-3", "-I", str(tmp_path), "use.pyx"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode != 0
    for lacks in LACKS[terms]:
        assert f"No_{lacks}" in run.stderr
