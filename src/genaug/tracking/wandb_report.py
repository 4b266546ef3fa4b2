"""A W&B report of an experiment's table, beside the runs that it is made of."""

from typing import Any

from genaug.core.errors import GenaugError, boundary


def write_report(*, title: str, text: str, group: str, metric: str, project: str, entity: str | None = None) -> str:
    """Write a report: the text (Markdown), a bar per generator of ``metric``, its curves on the validation split, all runs.

    Returns:
        The report's address. Each call makes a report of its own.

    Raises:
        GenaugError: if wandb-workspaces is not installed, or W&B does not take the report.
    """
    try:
        from wandb_workspaces.reports import v2 as reports
    except ImportError as error:
        raise GenaugError("A report needs wandb-workspaces. Install it: pip install 'genaug[report]'.") from error
    with boundary("Weights & Biases does not take the report", "Log in (wandb login), or leave --report out."):
        owner: dict[str, Any] = {} if entity is None else {"entity": entity}
        runs = reports.Runset(
            project=project,
            name=group,
            filters=f"Metric('group') = '{group}'",
            groupby=["config.generator.name"],
            **owner,
        )
        by_generator = reports.Config("generator.name")
        panels = [
            reports.BarPlot(metrics=[reports.SummaryMetric(metric)], groupby=by_generator, groupby_rangefunc="stderr"),
            reports.LinePlot(x="step", y=[metric.replace("test/", "val/", 1)], groupby=by_generator),
            reports.RunComparer(diff_only="split"),
        ]
        report = reports.Report(
            project=project,
            title=title[:128],
            blocks=[reports.MarkdownBlock(text), reports.PanelGrid(runsets=[runs], panels=panels)],
            width="fluid",
            **owner,
        )
        return report.save().url
