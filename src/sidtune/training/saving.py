"""The Trainer's checkpoints: written atomically, loaded through the CPU, the best one verified."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, PreTrainedTokenizerFast, Trainer, set_seed
from transformers.trainer_callback import ExportableState

from sidtune.base.storage import refusing_failed_writes
from sidtune.batching.steps import StepLoader
from sidtune.distributed import processes
from sidtune.files.weight_files import refusing_damage
from sidtune.model.checkpoint_files import load_training_state, save_training_state, unchanged_files
from sidtune.model.sharding import saved as sharded
from sidtune.model.unchanged import Unchanged
from sidtune.runs import best, checkpoints
from sidtune.runs.bundle import Bundle, write_bundle
from sidtune.runs.resumed import STATE
from sidtune.training.guards.untouched import Untouched

SCHEDULER = "scheduler.pt"


class CheckpointingTrainer(Trainer):
    """The part of the Trainer that writes checkpoints and continues from them.

    Attributes:
        tokenizer, identity, save_total_limit, bundle: see `StepTrainer`.
        untouched: verifies that frozen weights have not changed, if there are any.
        unchanged: checkpoint files of weights that never change, if there are any.
    """

    tokenizer: PreTrainedTokenizerFast
    identity: dict[str, Any]
    save_total_limit: int
    bundle: Callable[[], Bundle]
    untouched: Untouched | None
    unchanged: Unchanged | None
    # Whether the model's parameters are divided among processes.
    sharded: bool
    # The name of the checkpoint that the run continued from.
    _origin: str | None
    # Whether the run has become longer since that checkpoint.
    extended: bool = False
    _loader: StepLoader | None

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Called by Trainer after an evaluation; early stopping goes by `best_metric`, the highest
        value, and the saved model by `best_global_step`, which may be a later one.
        """
        chosen = best.is_best(metrics, self.state.best_metric, self.args)
        better: bool = super()._determine_best_metric(metrics, trial)
        if chosen:
            self.state.best_global_step = self.state.global_step
        return better

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write to a partial folder, rename it, and only then delete older checkpoints."""
        if self.untouched:
            self.untouched.verify(self.state.global_step)
        best.note(self.state, self.run)
        final = checkpoints.folder_of(self.run, self.state.global_step)
        assert final.name != self._origin, (
            "overwriting it would leave no complete checkpoint for a moment"
        )
        partial = checkpoints.partial_of(final)
        self._together(lambda: self._if_saving(lambda: checkpoints.make_partial(final)), partial)
        self._together(lambda: self._save_rng_state(str(partial)), partial)
        known: dict[str, str] = {}
        if self.sharded:
            self._together(lambda: known.update(self._save_shards(partial)), partial)
        self._together(
            lambda: self._if_saving(lambda: self._save_state(partial, final, known)), partial
        )

    def _save_shards(self, partial: Path) -> dict[str, str]:
        assert self.optimizer is not None
        return sharded.save_shards(self.language_model, self.optimizer, partial, self.unchanged)

    def _save_state(self, partial: Path, final: Path, known: dict[str, str]) -> None:
        if self.sharded:
            assert self.lr_scheduler is not None
            torch.save(self.lr_scheduler.state_dict(), partial / SCHEDULER)
        else:
            model, tokenizer = self.language_model, self.tokenizer
            known = save_training_state(model, tokenizer, partial, self.unchanged)
            self._save_optimizer_and_scheduler(str(partial))
        write_bundle(self.bundle(), partial)
        self._save_trainer_state(partial)
        manifest = checkpoints.seal(partial, self.identity, known)
        checkpoints.publish(partial, final)
        self._remember_unchanged(final, manifest)
        chosen = self.state.best_model_checkpoint
        checkpoints.rotate(final, self.save_total_limit, Path(chosen) if chosen else None)

    def _remember_unchanged(self, checkpoint: Path, manifest: checkpoints.Manifest) -> None:
        """Let the next checkpoint link the files of weights that never change."""
        if self.unchanged and self.sharded:
            prefix = f"{sharded.FROZEN}/"
            own = {n.removeprefix(prefix): e for n, e in manifest.items() if n.startswith(prefix)}
            self.unchanged.remember(checkpoint / sharded.FROZEN, own, sorted(own))
        elif self.unchanged:
            self.unchanged.remember(checkpoint, manifest, unchanged_files(checkpoint))

    def _if_saving(self, work: Callable[[], object]) -> None:
        if self.args.should_save:
            work()

    def _together(self, work: Callable[[], None], partial: Path) -> None:
        """Run `work` on every rank; if one cannot write, all raise its error, and `partial` is
        deleted.
        """

        def writing() -> None:
            with refusing_failed_writes(partial, self._checkpoint_bytes()):
                work()

        try:
            processes.all_or_none(writing, self.args)
        except BaseException:
            self._if_saving(lambda: shutil.rmtree(partial, ignore_errors=True))
            raise

    def _checkpoint_bytes(self) -> int:
        """Approximate size of a checkpoint on disk: weights and optimizer state.

        Files that are hard-linked from the previous checkpoint do not count.
        """
        assert self.optimizer is not None
        kept = [value for state in self.optimizer.state.values() for value in state.values()]
        tensors = [*self.language_model.parameters(), *kept]
        shared = self.unchanged.bytes if self.unchanged else 0
        # Of a sharded tensor, `nbytes` is that of the whole.
        return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor)) - shared

    def _save_trainer_state(self, folder: Path) -> None:
        callbacks: dict[str, Any] = self.state.stateful_callbacks  # type: ignore[assignment]
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                callbacks[type(callback).__name__] = callback.state()
        self.state.save_to_json(str(folder / STATE))

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        checkpoint = Path(resume_from_checkpoint)
        self._load_weights(checkpoint)
        if self.unchanged and self.args.should_save:
            # This process has already verified the checksum of every file.
            self._remember_unchanged(checkpoint, checkpoints.read_manifest(checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load through the CPU: under gloo, older Trainers load onto `cpu:0`, which torch does not
        know.
        """
        if checkpoint is not None:
            self._load_states(Path(checkpoint))
            # Trainer took the checkpoint's: an extended run evaluates and logs as one of its
            # length, and a resumed one logs as it is now told to.
            self.state.compute_steps(self.args, self.args.max_steps)
            best.restore(self.state, self.args, Path(checkpoint))
            if self.extended:
                self._follow_longer_schedule()
            else:
                self._stay_stopped()
            # The actions that led to this checkpoint are done. If no step is left, Trainer would
            # otherwise save this checkpoint over itself.
            self.control.should_log = self.control.should_evaluate = self.control.should_save = (
                False
            )
            self._origin = Path(checkpoint).name

    def _load_states(self, checkpoint: Path) -> None:
        """Load the states of optimizer and schedule."""
        saved: dict[str, Any] = {} if self.sharded else {"optimizer.pt": self.optimizer}
        for name, state in (saved | {SCHEDULER: self.lr_scheduler}).items():
            with refusing_damage(checkpoint):
                state.load_state_dict(
                    torch.load(checkpoint / name, map_location="cpu", weights_only=True)
                )
        if self.sharded:
            assert self.optimizer is not None
            sharded.load_optimizer_shards(self.language_model, self.optimizer, checkpoint)
            scheduler: Any = self.lr_scheduler
            for group, rate in zip(
                self.optimizer.param_groups, scheduler.get_last_lr(), strict=True
            ):
                group["lr"] = rate

    def _load_weights(self, checkpoint: Path) -> None:
        if self.sharded:
            sharded.load_shards(self.language_model, checkpoint)
        else:
            load_training_state(self.language_model, checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Restore the random state, or reseed if the number of processes has changed."""
        if checkpoint is None:
            return
        if (
            checkpoints.read_identity(Path(checkpoint)).get(checkpoints.PROCESSES)
            == self.args.world_size
        ):
            with refusing_damage(Path(checkpoint)):
                super()._load_rng_state(checkpoint)
            return
        self._draw_anew()

    def _draw_anew(self) -> None:
        """Reseed from seed, step and rank, so that dropout masks differ between ranks."""
        drawn = np.random.SeedSequence(
            [self.args.seed, self.state.global_step, self.args.process_index]
        )
        set_seed(int(drawn.generate_state(1)[0]))

    def _follow_longer_schedule(self) -> None:
        """Take the learning rate of a run of the new length at this step, and be patient anew."""
        assert self.optimizer is not None
        scheduler: Any = self.lr_scheduler
        for group, peak, share in zip(
            self.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True
        ):
            group["lr"] = peak * share(scheduler.last_epoch)
        # What the logs show of the next step.
        scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback):
                callback.early_stopping_patience_counter = 0

    def _stay_stopped(self) -> None:
        """Take no more steps if early stopping had already ended the run: only its result is
        missing.

        Trainer does not restore this; it would check again only after the next evaluation.
        """
        for callback in self.callback_handler.callbacks:
            stops = isinstance(callback, EarlyStoppingCallback)
            if (
                stops
                and callback.early_stopping_patience_counter >= callback.early_stopping_patience
            ):
                assert self._loader is not None
                self._loader.end_at(self.state.global_step)

    def _load_best_model(self) -> None:
        self._load_weights(best.verified(self.state, self.args))

    @property
    def run(self) -> Path:
        """The output folder."""
        return Path(str(self.args.output_dir))

    @property
    def loss_module(self) -> Any:
        """The loss module without wrappers such as DDP."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    @property
    def language_model(self) -> Any:
        """The model inside the loss module."""
        return self.loss_module.model
