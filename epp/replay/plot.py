"""Hit rate and time to first token over time, a line for each configuration."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from math import nan

from epp.replay.figures import Figures

FORMATS = ("svg", "png")
MISSING = "--plot needs the extra 'plot' (matplotlib): pip install 'endpoint-picker[plot]'"
_SIZE_INCHES = (9.0, 6.0)


def plot(found: Sequence[tuple[str, Figures]], title: str, kind: str) -> bytes:
    """The picture; the same bytes for the same figures.

    Args:
        kind: one of ``FORMATS``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "epp", "svg.fonttype": "none"}):
        picture = Figure(figsize=_SIZE_INCHES, layout="constrained")
        rates, times = picture.subplots(2, 1, sharex=True)
        for name, figures in found:
            minutes = [interval.start_s / 60 for interval in figures.course]
            rates.plot(minutes, [nan if i.hit_rate is None else i.hit_rate for i in figures.course], label=name)
            spreads = [interval.ttft_s for interval in figures.course]
            (line,) = times.plot(minutes, [s.p90 if s else nan for s in spreads], label=f"{name}, p90")
            times.plot(minutes, [s.p50 if s else nan for s in spreads], ":", color=line.get_color(), label=f"{name}, p50")
        rates.set_title(title, fontsize="medium")
        rates.set_ylabel("hit rate of prompt tokens")
        rates.set_ylim(bottom=0)
        times.set_ylabel("time to first token, s")
        times.set_ylim(bottom=0)
        times.set_xlabel("time, minutes")
        for axes in (rates, times):
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
        file = BytesIO()
        picture.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return file.getvalue()
