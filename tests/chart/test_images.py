"""The images of the chart, and of what it configures."""

from click.testing import CliRunner

from draftmark.cli import main as draftmark
from tests.chart.test_chart import CHART, ROOT, helm


def test_images_of_the_chart_and_of_what_it_configures_are_listed_together() -> None:
    chart = helm("template", "draftmark", str(CHART), "--set=global.imageRegistry=mirror.example")
    example = (ROOT / "examples" / "quickstart.yaml").read_text("utf-8")
    result = CliRunner().invoke(draftmark, ["images", "-f", "-"], input=f"{chart.stdout}\n---\n{example}")
    assert result.exit_code == 0, result.stderr
    images = result.stdout.splitlines()
    assert len(images) == 4
    assert all(image.startswith("mirror.example/") for image in images)
