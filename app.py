"""Draw a digit in the browser and see what the networks take it for: make draw.

Gradio serves the page, on this machine alone. Hugging Face Spaces looks for it under this name.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from PIL import Image

from predict import load_networks, prepare, read, verdict

SIDE = 280  # pixels, of the pad and of the picture shown
NETWORKS = load_networks()
NOTHING = [None] * (1 + len(NETWORKS))  # neither a picture nor what a network says of it


def answer(image: str | Image.Image) -> tuple[str, Image.Image | None, *tuple[dict | None, ...]]:
    """What the page shows of a picture: a sentence, what the networks are given, what each says.

    Of a picture that is no single digit there is the sentence only.
    """
    try:
        picture = prepare(image)
    except (OSError, ValueError) as error:
        sentence = str(error)
        if isinstance(image, str):  # an upload, in a folder of Gradio's
            sentence = sentence.replace(image, Path(image).name)
        return sentence, *NOTHING
    readings = read(picture, NETWORKS)
    digit = verdict(readings)
    sentence = "Unsure: the networks disagree." if digit is None else f"This is a {digit}."
    shown = Image.fromarray(picture[0].numpy()).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    labels = [dict(zip("0123456789", r.tolist(), strict=True)) for r in readings.values()]
    return f"## {sentence}", shown, *labels


def read_pad(pad: dict) -> tuple:
    """As answer, of what is drawn on the pad."""
    drawn = pad["composite"]
    if drawn is None or drawn.convert("L").getextrema() == (255, 255):
        return "The pad is empty: draw a digit on it, then press Read.", *NOTHING
    return answer(drawn)


def blank() -> Image.Image:
    """An empty pad. With a background the brush is at hand; without, it has to be chosen first."""
    return Image.new("RGB", (SIDE, SIDE), "white")


with gr.Blocks(title="Draw a digit", analytics_enabled=False) as page:
    gr.Markdown("# Draw a digit\nOne digit, as large as you like; then press Read.")
    with gr.Row():
        with gr.Column(min_width=280):
            pad = gr.Sketchpad(
                blank(),
                label="Draw here",
                elem_id="pad",
                type="pil",
                height=360,
                canvas_size=(SIDE, SIDE),
                fixed_canvas=True,
                layers=False,
                transforms=(),
                buttons=[],
                brush=gr.Brush(default_size=10, colors=["#000000"], color_mode="fixed"),
            )
            button = gr.Button("Read", variant="primary")
            upload = gr.UploadButton("Upload a picture instead", file_types=["image"])
        with gr.Column(min_width=280):
            shown = gr.Image(
                label="The networks are given", buttons=[], height=360, elem_id="shown"
            )
            sentence = gr.Markdown()
        with gr.Column(min_width=200):
            labels = [gr.Label(label=name, num_top_classes=2) for name in NETWORKS]
    outputs = [sentence, shown, *labels]
    button.click(read_pad, pad, outputs)
    upload.upload(answer, upload, outputs)
    pad.clear(blank, None, pad)

if __name__ == "__main__":
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}  # none fetched
    page.launch(share=False, ssr_mode=False, footer_links=[], theme=gr.themes.Default(**fonts))
