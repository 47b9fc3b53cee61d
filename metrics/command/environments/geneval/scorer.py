"""GenEval-style object scores as a scorer command: 1 where an image shows what its prompt asks for, else 0.

Prompts are GenEval's own ("a photo of two dogs", "a photo of a red cup and a blue chair"). Objects are found by Mask2Former on
COCO, and colours named by CLIP ViT-L/14 on the object's pixels. The rules are those of the authors' evaluation. Its networks run
in mmdetection and open_clip, these in transformers, whose masks are made at 384 x 384 and then resized, and whose detector and
CLIP resize images by other code: single images can come out otherwise.
"""

import os
from functools import partial

from ilf_bench_scorer import digest_of, redirect, serve

redirect()  # some of what follows prints while it loads

import colours  # noqa: E402
import objects  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import AutoImageProcessor, CLIPModel, CLIPProcessor, Mask2FormerForUniversalSegmentation  # noqa: E402

DETECTOR = os.environ.get("GENEVAL_DETECTOR", "facebook/mask2former-swin-small-coco-instance")
NAMER = os.environ.get("GENEVAL_CLIP", "openai/clip-vit-large-patch14")
DEVICE = os.environ.get("ILF_BENCH_DEVICE", "cpu")

see, detector = AutoImageProcessor.from_pretrained(DETECTOR), Mask2FormerForUniversalSegmentation.from_pretrained(DETECTOR)
read, namer = CLIPProcessor.from_pretrained(NAMER), CLIPModel.from_pretrained(NAMER)
for network in (detector, namer):
    network.eval().requires_grad_(False).to(DEVICE)
names = [objects.called(label) for label in detector.config.id2label.values()]


def detect(image):
    """Detections by class, best first."""
    given = see(images=image, return_tensors="pt").to(DEVICE)
    found = see.post_process_instance_segmentation(
        detector(**given), objects.THRESHOLD, target_sizes=[image.size[::-1]], return_binary_maps=True
    )[0]
    detections = {}
    for segment in sorted(found["segments_info"], key=lambda one: -one["score"]):
        mask = found["segmentation"][segment["id"]] > 0
        rows, columns = torch.where(mask)
        box = (float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1)
        name = objects.called(detector.config.id2label[segment["label_id"]])
        seen = objects.Found(box, float(segment["score"]), Image.fromarray(mask.cpu().numpy()))
        detections.setdefault(name, []).append(seen)
    return detections


def colour_of(image, found, name):
    """The most likely of GenEval's colours of an object."""
    given = read(text=colours.texts(name), images=colours.shown(image, found), return_tensors="pt", padding=True).to(DEVICE)
    embedded = namer(**given)
    return colours.nearest(embedded.image_embeds[0], embedded.text_embeds)


@torch.inference_mode()
def score(images, prompts):
    """1 or 0 for each path."""
    values = []
    for path, prompt in zip(images, prompts):  # noqa: B905
        image = Image.open(path).convert("RGB")
        wanted = objects.parse(prompt, names)
        values.append(float(objects.satisfied(wanted, detect(image), partial(colour_of, image))))
    return values


serve(
    score,
    name="geneval",
    title="GenEval-style object score",
    weights=digest_of(detector, namer),
    packages=("torch", "transformers"),
    preprocessing="the processors of both models",
    range=[0, 1],
)
