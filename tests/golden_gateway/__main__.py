"""Write the files anew. Read the difference before you commit it."""

from draftmark.render.gateway_config import render_gateway_config
from tests.golden_gateway import CASES, FOLDER

for case, config in CASES.items():
    (FOLDER / case).mkdir(exist_ok=True)
    for name, text in render_gateway_config(config).data.items():
        (FOLDER / case / name).write_text(text, "utf-8")
