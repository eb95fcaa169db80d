"""Trains a job by `open_clip_train.main`, which is left as it is but for three names that it looks up when it runs:
`get_data` gives our pairs, `tensorboard` takes its metrics, `evaluate` is called after each epoch. On CPUs several
processes need a fourth, `cpu_replicas`. An epoch is a part
of the training after which something may be due, often one step: see `Job.epoch_steps`."""

import contextlib
import json
import logging
import math
import os
import resource
import signal
import time
import types

import open_clip
import open_clip_train.main as trainer
import torch

from openclip_runner import checkpoint, events, measure
from openclip_runner.data import Stream
from openclip_runner.errors import BadInput, Diverged, Lost, Stopped
from openclip_runner.job import MODEL, Job
from openclip_runner.pool import open_pool

REPORTS = 100


def run(path, version):
    job = Job(path, version)
    training = Training(job)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, training.ask_to_stop)
    training.run()


class Training:
    """A job under way."""

    def __init__(self, job):
        self.job, self.stopping = job, False
        self.is_first = os.environ.get("RANK", "0") == "0" or job.ranks == 1
        if job.ranks == 1:
            os.environ["WORLD_SIZE"] = "1"  # open_clip_train also asks Slurm's variables, which count other tasks.
        torch.set_num_threads(max(1, job.threads))
        self.losses, self.reported_step, self.reported, self.scalars = [], 0, time.monotonic(), {}
        self.data_wait = 0.0  # Seconds since the last report.
        self.train_secs, self.eval_secs, self.model = 0.0, 0.0, None

    def ask_to_stop(self, *_):
        self.stopping = True

    def run(self):
        job = self.job
        pools = {}
        trained_on = [] if job.measures_only() else [job.spec["data"]]
        for source in [*trained_on, *(plan["data"] for plan in job.spec["evaluations"])]:
            if source["digest"] not in pools:
                pools[source["digest"]] = open_pool(job.path(source), source["digest"], source["pool"])
        self.pairs = None
        if trained_on:
            self.pairs = pools[job.spec["data"]["digest"]].pairs[: job.spec["data_size"]]
            if len(self.pairs) < job.spec["data_size"]:
                raise BadInput(f"`data_size` is {job.spec['data_size']}, but the pool has {len(self.pairs)} pairs")
        steps = job.evaluation_steps if trained_on else lambda _: set()
        self.held_out = [
            measure.held_out(plan, pools[plan["data"]["digest"]], steps(plan))
            for plan in job.spec["evaluations"]
        ]
        logs = job.attempt_dir / f"open_clip-{os.getpid()}"
        logs.mkdir(parents=True)
        config, files = job.model_files(logs)
        for name, content in files.items():
            (logs / name).write_bytes(content)
        (logs / f"{MODEL}.json").write_text(json.dumps(config))
        open_clip.add_model_config(logs / f"{MODEL}.json")
        if job.measures_only():
            return self._measure()
        found = checkpoint.newest(job)
        if job.init and not found:
            self._fits(job.init)
        step = found[0]["step"] if found else 0
        self.losses = found[0]["losses"] if found else []
        self.epoch_steps = job.epoch_steps(step)
        self.start = step // self.epoch_steps
        self.reported_step, self.saved_steps = step, job.checkpoint_steps()
        resume = found and checkpoint.resumable(job, found[1], self.start, logs)
        self._started(step * job.batch, data={"pairs": len(self.pairs)})
        if step < job.steps:
            trainer.get_data = self.get_data
            trainer.evaluate = self.after_epoch
            trainer.tensorboard = types.SimpleNamespace(SummaryWriter=lambda _: self)
            replicas = cpu_replicas() if job.ranks > 1 and job.device == "cpu" else contextlib.nullcontext()
            with replicas:
                if trainer.main(job.flags(logs, self.epoch_steps, resume)) == -1:
                    raise Lost("open_clip_train refused its arguments: see standard error")
            self._publish(job.steps)
        self._say(
            "finished", samples_seen=job.spec["samples_seen"], train_secs=self.train_secs, eval_secs=self.eval_secs,
            peak_memory_bytes=peak_memory(job.device),
        )

    def _say(self, event, **fields):
        if self.is_first:
            events.emit(event, **fields)

    def _fits(self, path):
        """Refuses weights of other input sizes: open_clip would interpolate their positions without a word."""
        state = open_clip.factory.load_state_dict(str(path))
        for name, tensor in self._empty().state_dict().items():
            if "positional_embedding" in name and name in state and state[name].shape != tensor.shape:
                raise BadInput(
                    f"`{name}` is {list(state[name].shape)} in `{path}`, {list(tensor.shape)} in the model: sizes of "
                    "images and captions are `recipe.image_size` and `recipe.context_length`"
                )

    def _measure(self):
        """Measures the weights that the job starts from, at 0 samples."""
        job = self.job
        self._fits(job.init)
        began = time.monotonic()
        self._started(0)
        told = job.recipe.get("preprocess", {})
        precision = job.recipe["precision"]
        model, _, preprocess = open_clip.create_model_and_transforms(
            MODEL, str(job.init), precision=precision, device=job.device, image_mean=told.get("mean"),
            image_std=told.get("std"), image_interpolation=told.get("interpolation"),
            image_resize_mode=told.get("resize_mode"),
        )
        model.eval()
        tokenizer = open_clip.get_tokenizer(MODEL)
        measuring = measure.Measuring(
            model, preprocess, tokenizer, job.recipe.get("alpha", "drop"), precision, job.device,
        )
        for data in self.held_out:
            if self.stopping:
                raise Stopped
            self._evaluate(measuring, data, 0)
        secs = time.monotonic() - began
        self._say(
            "finished", samples_seen=0, train_secs=0.0, eval_secs=secs, peak_memory_bytes=peak_memory(job.device),
        )

    def _empty(self):
        with torch.device("meta"):
            return open_clip.create_model(MODEL, device="meta", load_weights=False)

    def _started(self, samples_seen, **more):
        threads = f"cpu ({self.job.threads} thread{'s' * (self.job.threads != 1)})"
        device = threads if self.job.device == "cpu" else torch.cuda.get_device_name()
        self._say(
            "started", parameters=sum(p.numel() for p in self._empty().parameters()), device=device,
            resumed_from_samples=samples_seen, **more,
        )

    def _evaluate(self, measuring, data, samples_seen):
        rows, unmeasured = measuring.measure(data)
        more = {"unmeasured": unmeasured} if unmeasured else {}
        self._say("eval", samples_seen=samples_seen, dataset=data.name, measurements=rows, **more)

    # What open_clip_train calls.

    def get_data(self, args, preprocess_fns, epoch=0, tokenizer=None):
        for handler in logging.getLogger().handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.WARNING)  # Its lines are in out.log; what they say are events here.
        self.args, self.tokenizer = args, tokenizer
        self.preprocess = preprocess_fns[1]
        train = preprocess_fns[0] if self.job.recipe["augmentation"] == "random_resized_crop" else self.preprocess
        stream = Stream(self.job, self.pairs, args, train, tokenizer, epoch, self.epoch_steps, self.before_epoch)
        return {"train": stream, "val": None}

    def before_epoch(self, epoch):
        """The checkpoint of the last epoch, if one was due, is on the disk."""
        if epoch > self.start:
            self._publish(epoch * self.epoch_steps)
            if self.stop_agreed:
                raise Stopped
        self.began = time.monotonic()

    def add_scalar(self, name, value, step):
        """A metric of a step; the loss comes last."""
        self.scalars[name] = value
        if name != "train/loss":
            return
        step += 1
        if not math.isfinite(value):
            raise Diverged(
                f"the loss of step {step} is {value}: training diverged; try a lower learning rate, a longer warmup or "
                "`grad_clip_norm`"
            )
        self.losses.append(value)
        self.data_wait += self.scalars["train/data_time"]
        if step % math.ceil(self.job.steps / REPORTS) == 0 or step == self.job.steps:
            now = time.monotonic()
            rate = (step - self.reported_step) * self.job.batch / (now - self.reported)
            metrics = {
                "lr": self.scalars["train/lr"], "logit_scale": math.log(self.scalars["train/scale"]),
                "samples_per_sec": rate,
            }
            if self.job.accum == 1:  # Else open_clip counts other parts of the step in.
                metrics["data_wait_secs"] = self.data_wait
            loss = sum(self.losses) / len(self.losses)
            self._say("step", step=step, samples_seen=step * self.job.batch, loss=loss, metrics=metrics)
            self.losses, self.reported, self.reported_step, self.data_wait = [], now, step, 0.0

    def after_epoch(self, model, data, epoch, args, tb_writer=None, tokenizer=None):
        """Measures what is due, and says whether open_clip_train is to save."""
        now = time.monotonic()
        self.train_secs += now - self.began
        step = epoch * self.epoch_steps
        due = [data for data in self.held_out if step in data.steps]
        if due and self.is_first:
            model = getattr(model, "module", model)
            measuring = measure.Measuring(
                model, self.preprocess, self.tokenizer, self.job.recipe.get("alpha", "drop"), args.precision,
                args.device,
            )
            for data in due:
                self._evaluate(measuring, data, step * self.job.batch)
            self.eval_secs += time.monotonic() - now
        self.reported += time.monotonic() - now  # Measuring is not training.
        self.stop_agreed = self._agree(args)
        saving = self.stop_agreed or step in self.saved_steps
        args.save_frequency = 1 if saving else 0

    def _agree(self, args):
        """Whether any rank was asked to stop: all stop after the same step."""
        if args.world_size == 1:
            return self.stopping
        flag = torch.tensor(float(self.stopping), device=args.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return flag.item() > 0

    def _publish(self, step):
        saved = os.path.join(self.args.checkpoint_path, f"epoch_{step // self.epoch_steps}.pt")
        if not self.is_first or not os.path.exists(saved):
            return
        size = self.job.model["vision_cfg"]["image_size"]
        size = size if isinstance(size, list) else [size, size]
        preprocess = open_clip.transform.PreprocessCfg(size=size, **self.job.recipe.get("preprocess", {})).__dict__
        path, sha256 = checkpoint.publish(self.job, saved, step, self.losses, preprocess)
        self._say("checkpoint", step=step, samples_seen=step * self.job.batch, path=path, sha256=sha256)


@contextlib.contextmanager
def cpu_replicas():
    """open_clip_train names a device to DDP, which takes none on a CPU."""
    parallel = torch.nn.parallel
    replicated = parallel.DistributedDataParallel
    parallel.DistributedDataParallel = lambda model, device_ids=None, **kwargs: replicated(model, **kwargs)
    try:
        yield
    finally:
        parallel.DistributedDataParallel = replicated


def peak_memory(device):
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
