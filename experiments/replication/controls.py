"""Write the images of replication/controls: ``python experiments/replication/controls.py outputs/controls``.

Per seed a folder with three manifests for ``generator=folder``: copies of the four drawn images per class, held-back real
training images of the same class, and the same held-back images with their labels shuffled.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from genaug import compose

NUM_SEEDS, SHOTS, M = 8, 4, 5


def main(root: Path) -> None:
    source = compose(["generator=none", "dataset=digits", f"dataset.shots={SHOTS}"]).dataset
    whole = source.whole()
    for seed in range(NUM_SEEDS):
        drawn = replace(source, seed=seed).draw(whole).train
        rng = np.random.default_rng(seed)
        rows: dict[str, list[dict[str, str]]] = {"copies": [], "held_back": []}
        folder = root / str(seed)
        (folder / "images").mkdir(parents=True, exist_ok=True)

        def row(sample, to, name, folder=folder):
            """One image as the variant of a drawn one."""
            sample.open().save(folder / name)
            return {"file_name": name, "source": to.id, "label": whole.class_names[sample.class_index]}

        for label in range(len(whole.class_names)):
            own = [sample for sample in drawn if sample.class_index == label]
            known = {sample.id for sample in own}
            rest = [sample for sample in whole.train if sample.class_index == label and sample.id not in known]
            chosen = [rest[i] for i in rng.permutation(len(rest))[: SHOTS * M]]
            for i, sample in enumerate(chosen):
                to = own[i % SHOTS]
                rows["held_back"].append(row(sample, to, f"images/held_back_{label}_{i}.png"))
                rows["copies"].append(row(to, to, f"images/copy_{label}_{i}.png"))
        labels = [one["label"] for one in rows["held_back"]]
        order = rng.permutation(len(labels))
        rows["shuffled"] = [{**one, "label": labels[i]} for one, i in zip(rows["held_back"], order, strict=True)]
        for kind, content in rows.items():
            (folder / f"{kind}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in content))
    print(f"{NUM_SEEDS} seeds below {root}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
