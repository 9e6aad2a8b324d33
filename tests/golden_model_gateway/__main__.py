"""Write the files anew. Read the difference before you commit it."""

from tests.golden_model_gateway import CASES, outputs

for case in CASES:
    for file, text in outputs(case).items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, "utf-8")
