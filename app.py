"""Draw a digit in the browser and see what the networks read: python app.py.

Gradio serves the page, on this machine alone.
"""

import os
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from PIL import Image

from predict import classify, load_networks, preprocess, verdict

NETWORKS = load_networks()


def answer(image: str | Image.Image) -> tuple:
    """A sentence, what the networks are given (or None), and per network its label (or None)."""
    try:
        picture = preprocess(image)
    except ValueError as error:
        name = Path(image).name if isinstance(image, str) else ""  # not Gradio's folder of uploads
        return str(error).replace(str(image), name), None, *[None] * len(NETWORKS)
    probabilities = classify(picture, NETWORKS)
    digit = verdict(probabilities)
    sentence = "Unsure: the networks disagree." if digit is None else f"This is a {digit}."
    shown = Image.fromarray(picture[0].numpy()).resize((280, 280), Image.Resampling.NEAREST)
    labels = [dict(zip("0123456789", p.tolist(), strict=True)) for p in probabilities.values()]
    return f"## {sentence}", shown, *labels


with gr.Blocks(title="Draw a digit", analytics_enabled=False) as page:
    gr.Markdown("# Draw a digit\nOne digit, as large as you like; then press Read.")
    with gr.Row():
        with gr.Column(min_width=280):
            # With a white picture the brush is at hand; without, it has to be chosen first.
            canvas, brush = Image.new("RGB", (280, 280), "white"), gr.Brush(10, ["#000000"])
            pad = gr.Sketchpad(canvas, label="Draw here", elem_id="pad", type="pil", brush=brush)
            button = gr.Button("Read", variant="primary")
            upload = gr.UploadButton("Upload a picture instead", file_types=["image"])
        with gr.Column(min_width=280):
            outputs = [gr.Markdown(), gr.Image(label="The networks are given", elem_id="shown")]
            outputs += [gr.Label(label=name, num_top_classes=2) for name in NETWORKS]
    button.click(lambda drawn: answer(drawn["composite"] or canvas), pad, outputs)
    upload.upload(answer, upload, outputs)
    pad.clear(lambda: canvas, None, pad)

if __name__ == "__main__":
    page.launch(share=False, ssr_mode=False)
