#!/usr/bin/env python3
"""Trains the demo model.

    python3 train.py WORK [--dialogues N] [--device cuda]
    for r in 0 1; do python3 train.py WORK --ranks 2 --rank $r & done; wait     (two cores, one process each)

WORK holds the tokenizer (make_tokenizer.py), the encoded text, the checkpoint and the log of the loss. A run that
was ended goes on from its checkpoint when it is started again with the same arguments. There are two rounds, of the two parts
of the text (generate.py); in each the learning rate warms up, stays, and falls to zero over the last share of the steps:
RATES. A run may be given another number of dialogues until the rate of its second round falls.
Ranks share the micro-batches of a step and add up their gradients, so their number changes nothing but rounding. On
busy cores two processes of one thread lose far less than one of two threads, whose every sum would wait for both.
"""

import argparse
import datetime
import hashlib
import os
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tokenizers import Tokenizer

import chat
import model
from generate import FIRST, ROUND, SEED, dialogue, lines

MAX_LEN = 1536  # longer dialogues are left out
CHUNK = 12288  # dialogues sorted by length together
MICRO_BATCHES = 2  # micro-batches of a step: of different lengths, so of different tasks
WARMUP = 60
RATES = [(1.0, 0.4), (0.5, 0.9)]  # of a round: the highest rate, and the share of the steps in which it falls
MUON_LR, ADAM_LR = 0.02, 3e-3
LOG_STEPS, SAVE_SECONDS = 25, 150


def recipe(work):
    """A short name of the tokenizer and of the text that the generator makes now."""
    digest = hashlib.sha256("\n".join([line for first in (0, FIRST, ROUND) for line in lines(first, first + 200)]).encode())
    with open(os.path.join(work, "tokenizer.json"), "rb") as f:
        digest.update(f.read())
    return digest.hexdigest()[:12]


def encode(work, first, end):
    """Dialogues first..end-1 as one array of tokens, one of learned positions, and the offsets; kept in WORK."""
    path = os.path.join(work, f"text-{first}-{end}-{recipe(work)}.npz")
    if os.path.exists(path):
        z = np.load(path)
        return z["ids"], z["learned"], z["offsets"]
    tok = Tokenizer.from_file(os.path.join(work, "tokenizer.json"))
    ids, learned, offsets = [], [], [0]
    for start in range(first, end, 10000):
        pieces = [chat.parts(dialogue(SEED, i)[0]) for i in range(start, min(end, start + 10000))]
        flat = tok.encode_batch([text for p in pieces for text, _ in p], add_special_tokens=False)
        at = 0
        for p in pieces:
            length = 0
            for _, learn in p:
                got = flat[at].ids
                at += 1
                ids.append(np.array(got, np.uint16))
                learned.append(np.full(len(got), learn))
                length += len(got)
            offsets.append(offsets[-1] + length)
    ids, learned, offsets = np.concatenate(ids), np.concatenate(learned), np.array(offsets)
    np.savez(path, ids=ids, learned=learned, offsets=offsets)
    return ids, learned, offsets


def batches(offsets, micro_tokens, rng):
    """Lists of dialogue numbers, each a micro-batch of about one length; in an order that only rng decides."""
    lengths = np.diff(offsets)
    for start in range(0, len(lengths), CHUNK):
        order = np.arange(start, min(start + CHUNK, len(lengths)))
        order = order[np.argsort(lengths[order], kind="stable")]
        made, row = [], []
        for i in order:
            if lengths[i] > MAX_LEN:
                continue
            if row and (len(row) + 1) * lengths[i] > micro_tokens:
                made.append(row)
                row = []
            row.append(int(i))
        made.append(row)
        for j in rng.permutation(len(made)):
            yield made[j]


def orthogonal(g):
    """The nearest matrices with orthogonal rows or columns, roughly: five Newton-Schulz steps on a stack [n, rows, cols].

    Muon: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; its coefficients."""
    tall = g.shape[1] > g.shape[2]
    x = g.transpose(1, 2) if tall else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x.transpose(1, 2) if tall else x


class Muon:
    """Momentum made orthogonal, for the matrices of the layers; matrices of one shape go through it together."""

    def __init__(self, matrices):
        self.groups = {}
        for m in matrices:
            self.groups.setdefault(tuple(m.shape), []).append(m)
        self.momentum = {s: torch.zeros(len(g), *s, device=g[0].device) for s, g in self.groups.items()}

    @torch.no_grad()
    def step(self, lr):
        for shape, group in self.groups.items():
            g = torch.stack([m.grad for m in group])
            v = self.momentum[shape]
            v.lerp_(g, 0.05)
            update = orthogonal(g.lerp(v, 0.95)) * max(1, shape[0] / shape[1]) ** 0.5
            for m, u in zip(group, update):
                m.mul_(1 - lr * 0.01).add_(u, alpha=-lr)


def join(ranks, rank, work):
    """Makes this process one of several; they meet in a file."""
    dist.init_process_group(
        "gloo",
        init_method="file://" + os.path.abspath(os.path.join(work, "meeting")),
        world_size=ranks,
        rank=rank,
        timeout=datetime.timedelta(hours=2),
    )


def add_up(tensors):
    """Every rank's sum of the ranks' gradients, and of one more number in front."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    at = 0
    for t in tensors:
        t.copy_(flat[at : at + t.numel()].view_as(t))
        at += t.numel()


def schedule(number, step, steps):
    high, falls = RATES[number]
    return high * min(1, (step + 1) / WARMUP, (steps - step) / (falls * steps))


class Run:
    """Weights, optimizers and the log; all that a checkpoint holds."""

    def __init__(self, args):
        self.args = args
        self.config = model.CONFIGS[args.size]
        self.recipe = recipe(args.work)
        self.path = os.path.join(args.work, "checkpoint.pt")
        self.p = {k: v.to(args.device).requires_grad_() for k, v in model.init(SEED, self.config).items()}
        inner = {k for k, v in self.p.items() if "layers" in k and v.dim() == 2}
        self.muon = Muon([v for k, v in self.p.items() if k in inner])
        outer = [v for k, v in self.p.items() if k not in inner]
        self.adam = torch.optim.AdamW(outer, lr=ADAM_LR, betas=(0.9, 0.98), weight_decay=0, fused=True)
        self.round, self.step, self.steps = 0, 0, 0
        self.tokens, self.seconds, self.log = 0, 0.0, []

    def save(self):
        value = {
            "config": self.config, "recipe": self.recipe, "device": self.args.device,
            "dialogues": self.args.dialogues,
            "micro_tokens": self.args.micro_tokens, "round": self.round, "step": self.step, "steps": self.steps, "tokens": self.tokens,
            "seconds": self.seconds, "log": self.log, "muon": self.muon.momentum, "adam": self.adam.state_dict(),
            "p": {k: v.detach() for k, v in self.p.items()},
        }
        torch.save(value, self.path + ".new")
        os.replace(self.path + ".new", self.path)

    def load(self):
        """Goes on where the checkpoint was made, if there is one."""
        if not os.path.exists(self.path):
            return
        c = torch.load(self.path, map_location=self.args.device, weights_only=False)
        mine = (self.config, self.recipe, self.args.micro_tokens)
        if (c["config"], c["recipe"], c["micro_tokens"]) != mine:
            raise SystemExit(f"{self.path} is of a run with other arguments or another text")
        if c["dialogues"] != self.args.dialogues and c["round"] > 0 and c["step"] > (1 - RATES[1][1]) * c["steps"]:
            raise SystemExit(f"{self.path}: too late for another number of dialogues, the rate falls already")
        self.round, self.step, self.steps = c["round"], c["step"], c["steps"]
        self.tokens, self.seconds, self.log = c["tokens"], c["seconds"], c["log"]
        with torch.no_grad():
            for k, v in c["p"].items():
                self.p[k].copy_(v)
        self.muon.momentum = c["muon"]
        self.adam.load_state_dict(c["adam"])

    def start(self, number, steps):
        """Begins a round, or goes on in it."""
        if self.round != number:
            self.round, self.step = number, 0
        self.steps = steps

    def update(self):
        """One step of both optimizers with the gradients that lie there."""
        rate = schedule(self.round, self.step, self.steps)
        self.muon.step(MUON_LR * rate)
        for group in self.adam.param_groups:
            group["lr"] = ADAM_LR * rate
        self.adam.step()
        for v in self.p.values():
            v.grad = None
        self.step += 1


def padded(text, rows):
    """Dialogues as [rows, longest] tokens and the positions that are learned."""
    ids, learned, offsets = text
    spans = [slice(offsets[i], offsets[i + 1]) for i in rows]
    longest = max(s.stop - s.start for s in spans)
    x, mask = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), bool)
    for r, s in enumerate(spans):
        x[r, : s.stop - s.start] = ids[s]
        mask[r, : s.stop - s.start] = learned[s]
    return torch.from_numpy(x), torch.from_numpy(mask)


def gradients(run, text, micro, table):
    """Adds this rank's gradients of a step up with the others'; the mean loss of a learned token."""
    args = run.args
    total = sum(int(text[1][text[2][i] : text[2][i + 1]].sum()) for rows in micro for i in rows)
    loss_sum = torch.zeros(1)
    for rows in micro[args.rank :: args.ranks]:
        x, mask = (t.to(args.device) for t in padded(text, rows))
        with torch.autocast(args.device, torch.bfloat16, enabled=args.device == "cuda"):
            h = model.hidden_states(run.p, run.config, x[:, :-1], *table)
            said = model.logits(run.p, h[mask[:, 1:]]).float()
        loss = F.cross_entropy(said, x[:, 1:][mask[:, 1:]], reduction="sum") / total
        loss.backward()
        loss_sum += loss.detach().cpu()
    if args.ranks > 1:
        add_up([loss_sum] + [v.grad for v in run.p.values()])
    return float(loss_sum)


def train(run, text, plan):
    args, offsets = run.args, text[2]
    table = tuple(t.to(args.device) for t in model.rope(run.config, MAX_LEN))
    started = saved = told = time.monotonic()
    before, losses = run.seconds, []
    while run.step < run.steps:
        micro = plan[run.step * MICRO_BATCHES : (run.step + 1) * MICRO_BATCHES]
        losses.append(gradients(run, text, micro, table))
        run.tokens += sum(int(offsets[i + 1] - offsets[i]) for rows in micro for i in rows)
        run.update()
        now = time.monotonic()
        run.seconds = before + now - started
        if len(losses) == LOG_STEPS:
            run.log.append((run.step, run.tokens, sum(losses) / len(losses)))
            losses = []
        if args.rank > 0:
            continue
        if now - told > 20 and run.log:
            told = now
            speed = run.tokens / run.seconds
            print(f"step {run.step}/{run.steps} loss {run.log[-1][2]:.4f} {speed:.0f} tokens/s {run.seconds:.0f} s", flush=True)
        if now - saved > SAVE_SECONDS:
            saved = now
            run.save()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work")
    parser.add_argument("--dialogues", type=int, default=430000)
    parser.add_argument("--size", choices=model.CONFIGS, default="small")
    parser.add_argument("--micro-tokens", type=int, default=1792, help="tokens of a micro-batch, padding included")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--rank", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.ranks > 1:
        join(args.ranks, args.rank, args.work)
        if args.rank > 0:
            dist.barrier()  # the first makes the text, the others read it
    rounds = [(0, ROUND), (ROUND, max(args.dialogues, ROUND + 1))]
    texts = [encode(args.work, first, end) for first, end in rounds]
    if args.ranks > 1 and args.rank == 0:
        dist.barrier()
    run = Run(args)
    run.load()
    if args.rank == 0:
        print(f"{sum(v.numel() for v in run.p.values())} parameters", flush=True)
    for number in range(run.round, len(rounds)):
        text = texts[number]
        plan = list(batches(text[2], args.micro_tokens, np.random.default_rng(SEED + number)))
        run.start(number, len(plan) // MICRO_BATCHES)
        if args.rank == 0:
            learned = f"{text[2][-1]} tokens ({text[1].mean():.2f} learned)"
            print(f"round {number}: {learned}, step {run.step} of {run.steps}", flush=True)
        train(run, text, plan)
    if args.rank == 0:
        run.save()
    if args.ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
