import pytest

from tools.lock import pins

RESOLVED = """\
# a header
filelock==3.1 # via torch, attn (pyproject.toml)
numpy==2.4.6 ; python_full_version < '3.12' # via attn (pyproject.toml)
numpy==2.5.5 ; python_full_version >= '3.12'  # via scipy, attn (pyproject.toml)
nvidia-cublas==13.1 ; sys_platform == 'linux'  # via cuda-toolkit
cuda-toolkit==13.0 ; sys_platform == 'linux'  # via torch
helper-of-cuda==1.0  # via cuda-toolkit, nvidia-cublas
torch==2.13.0+cpu # via attn (pyproject.toml)
triton==3.7.1  # via torch
"""


def test_pins_keep_public_versions_and_markers_and_leave_cuda_out():
    assert pins(RESOLVED) == [
        "filelock==3.1",
        "numpy==2.4.6 ; python_full_version < '3.12'",
        "numpy==2.5.5 ; python_full_version >= '3.12'",
        "torch==2.13.0",
    ]


def test_what_others_need_too_stays():
    shared = RESOLVED.replace("# via cuda-toolkit, nvidia-cublas", "# via cuda-toolkit, numpy")
    assert "helper-of-cuda==1.0" in pins(shared)


@pytest.mark.parametrize(
    "line", ["--index-url https://example.org/simple", "torch @ https://example.org/torch.whl"]
)
def test_a_line_that_names_a_place_is_refused(line):
    with pytest.raises(ValueError, match="cannot hold.*name==version"):
        pins(RESOLVED + line)
