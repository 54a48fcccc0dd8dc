"""A training with Hugging Face's Trainer as a process of its own, which tests kill.

`python hugging_face_trainer.py FOLDER [resume] [what=value ...]`. A witness writes what every step was
computed with to `FOLDER/truth-RANK`: the step, its learning rate at the optimiser, and what the trainer logged.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from isoloss.hooks.hugging_face import IsolossCallback
from tests.hooks.trainings import hold


class Witness(TrainerCallback):
    """Writes down what happened, in its own way."""

    def __init__(self, folder, options):
        self.truth = (folder / f"truth-{os.environ.get('RANK', '0')}").open("a", buffering=1)
        self.folder, self.options, self.lr = folder, options, None

    def on_train_begin(self, args, state, control, optimizer=None, **parts):
        inner = getattr(optimizer, "optimizer", optimizer)
        inner.register_step_pre_hook(self.note)

    def note(self, optimizer, *_):
        self.lr = optimizer.param_groups[0]["lr"]

    def on_log(self, args, state, control, logs=None, **parts):
        self.truth.write(json.dumps({"step": state.global_step, "used_lr": self.lr, **logs}) + "\n")

    def on_step_end(self, args, state, control, **parts):
        hold(self.folder, self.options, state.global_step - 1)  # the last that was logged
        if state.global_step == int(self.options.get("raise_at", "-1")):
            raise RuntimeError("the training fails")


class Text(torch.utils.data.Dataset):
    """Random tokens, the same each time."""

    def __init__(self, n, length):
        self.ids = torch.randint(64, (n, length), generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


def main(folder: Path, options: dict[str, str]) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, max_position_embeddings=32, **sizes))
    arguments = TrainingArguments(
        output_dir=str(folder / "out"),
        max_steps=int(options.get("steps", "60")),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=3e-3,
        weight_decay=0.1,
        lr_scheduler_type=options.get("scheduler", "linear"),
        warmup_steps=5,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=20,
        save_steps=20,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        bf16="bf16" in options,
    )
    witness = Witness(folder, options)
    callback = IsolossCallback(config={"dataset": "noise"})
    trainer = Trainer(
        model, arguments, train_dataset=Text(512, 16), eval_dataset=Text(8, 16), callbacks=[callback, witness]
    )
    trainer.train(resume_from_checkpoint="resume" in options or None)
    if "evaluate" in options:
        trainer.evaluate()
    counts = [sum(p.numel() for p in model.parameters()), model.get_input_embeddings().weight.numel()]
    (folder / "counts").write_text(json.dumps(counts))


if __name__ == "__main__":
    given = (each.partition("=") for each in sys.argv[2:])
    main(Path(sys.argv[1]), {name: value for name, _, value in given})
