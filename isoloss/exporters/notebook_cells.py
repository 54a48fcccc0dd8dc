"""The cells of a fit's notebook, with words in capitals where what differs between fits is put in."""

from __future__ import annotations

TITLE = """\
# {law} fitted to runs of {project}

Fit `{fit_id}`, verdict **{verdict}**, made by Isoloss {version}. The folder `{data}` beside this notebook holds
what the service read for it ({runs}, {points}) and the fit itself, `fit.json`. Nothing here asks the service:
`pip install isoloss` is all that it needs, and `pip install "isoloss[plots]"` to draw.

What may keep the numbers from being the same:
{caveats}
"""

READ = """\
import isoloss

data = isoloss.read_fit_data(DATA)
data.observations
"""

AGAIN = """\
law = LAW
options = OPTIONS
fit = isoloss.fit(law, data.observations, left_out=data.left_out, **options)
fit
"""

CHECK = """\
import math

served, mine = data.served, fit.public()
assert mine["provenance"]["data_sha256"] == served["provenance"]["data_sha256"], (
    "these are not the data that the service fitted: runs have changed since, see above"
)

largest = 0.0


def compare(here, there, where):
    global largest
    if isinstance(there, dict):
        assert here.keys() >= there.keys(), where
        for name in there:
            compare(here[name], there[name], f"{where}.{name}")
    elif isinstance(there, (list, tuple)):
        assert len(here) == len(there), where
        for number, one in enumerate(there):
            compare(here[number], one, f"{where}[{number}]")
    elif isinstance(there, (int, float)) and not isinstance(there, bool):
        assert math.isclose(here, there, rel_tol=TOLERANCE, abs_tol=1e-12), (where, here, there)
        largest = max(largest, abs(here - there) / max(abs(there), 1e-12))
    else:
        assert here == there, (where, here, there)


for part in ("verdict", "objective", "parameters", "groups", "derived"):
    compare(mine[part], served[part], part)

if isoloss.__version__ != served["provenance"]["code_version"]:
    print("Another version of Isoloss made the fit:", served["provenance"]["code_version"])
print("The same data, and the same numbers", "to the bit." if not largest else f"within {largest:.1e} of each.")
"""

DRAW = """\
try:
    from isoloss.plots import fitted_figure

    figure = fitted_figure(fit, data.observations)
except ImportError:
    figure = "To draw it: pip install 'isoloss[plots]'"
except isoloss.IsolossError as error:
    figure = f"There is nothing to draw: {error}"
figure
"""

PREDICT = """\
# A run that was not trained: another schedule than any above.
try:
    last = max(curve.schedule.total_steps for curve in data.observations)
    peak = max(curve.schedule.peak_lr for curve in data.observations)
    linear = {"kind": "linear", "total_steps": last, "warmup_steps": max(1, last // 50), "peak_lr": peak}
    config = {"n_params": max((curve.n_params or 0 for curve in data.observations), default=0) or None}
    config = {name: value for name, value in config.items() if value}
    predicted = fit.predict(schedule=linear, steps=[last // 2, last], config=config)
except isoloss.IsolossError as error:
    predicted = f"No prediction: {error}"
predicted
"""
