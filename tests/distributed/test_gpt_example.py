"""The example GPT, small: one loss curve in every way of starting, and a resume that continues bit for bit."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reliability"))
from gpt_runs import LAUNCH, TINY, losses, train  # noqa: E402

COMMON = ["--steps", "8", "--save-every", "3", *TINY]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    train("python", out, *COMMON, timeout=120)
    return losses(out)


@pytest.mark.slow
@pytest.mark.parametrize("way", [w for w in LAUNCH if w != "python"])
def test_the_curve_of_one_process(way, alone, tmp_path):
    train(way, tmp_path, *COMMON, timeout=120)
    assert losses(tmp_path) == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
def test_accumulation_gives_the_same_curve(alone, tmp_path):
    train("dtrain run -n 2", tmp_path, *COMMON, "--micro-batches", "4", timeout=120)
    assert losses(tmp_path) == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 6])
def test_resume_continues_bit_for_bit(stop, tmp_path):
    common = [*COMMON, "--dropout", "0.1"]
    train("dtrain run -n 2", tmp_path / "whole", *common, timeout=120)
    train("dtrain run -n 2", tmp_path / "parts", *common, "--stop-after", str(stop), timeout=120)
    train("dtrain run -n 2", tmp_path / "parts", *common, "--resume", timeout=120)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
