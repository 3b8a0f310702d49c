# %% [markdown]
# # 6 · Time-weighting: how far back, as well as what
#
# **You will build** attention that also weighs its keys by their distance, prove what it is equal to, find its best weights in closed form where one exists, and then test three published claims with controls and error bars.
#
# **You need** chapters 2 to 4: attention, the block, training.
#
# **Time**: it runs in about two minutes on two CPU cores; reading and playing, plan on an hour.

# %% [markdown]
# Change these as you like, then choose *Run → Restart Kernel and Run All Cells*.
#
# | parameter | what it does |
# |---|---|
# | `corpus` | a corpus by name, a file or folder, or `text:` and the text itself |
# | `block_size`, `n_layer`, `n_head`, `n_embd` | the shape of the models trained here |
# | `max_steps`, `batch_size`, `learning_rate` | of each run of the small experiment |
# | `n_seeds` | how many seeds each of its arms gets |
# | `distances` | how many steps back the closed form looks |
# | `seed`, `out_dir` | the first seed; where the results go |

# %% tags=["parameters"]
corpus = "auto"
block_size = 64
n_layer = 3
n_head = 4
n_embd = 64
max_steps = 300
batch_size = 8
learning_rate = 3e-3
n_seeds = 2
distances = 16
seed = 1337
out_dir = "runs/06_time_weighting"

# %%
from gptlib.config import GPTConfig, above, at_least, check_parameters

check_parameters(globals(), corpus=str, block_size=at_least(2), n_layer=at_least(1), n_head=at_least(1), n_embd=at_least(2),
                 max_steps=at_least(1), batch_size=at_least(1), learning_rate=above(0.0), n_seeds=at_least(2),
                 distances=at_least(2), seed=at_least(0), out_dir=str)
config = GPTConfig(vocab_size=1, block_size=block_size, n_layer=n_layer, n_head=n_head, n_embd=n_embd)

# %% [markdown]
# ## A weight on time
#
# Attention asks *what* a key holds. Where it stands is known only through vectors added at the very bottom. MyGPT, one of the small GPTs that this course re-creates, tells each head directly: after the softmax, multiply by a learned number,
#
# $$y_i = \sum_{j \le i} p_{ij}\, w_{ij}\, v_j .$$
#
# Each head has a table $w$ of its own, block × block, all ones at the start.

# %%
import torch

torch.manual_seed(seed)
H, T, D = 2, 6, 4
q, k, v = (torch.randn(1, H, T, D, dtype=torch.float64) for _ in range(3))
w = torch.randn(H, T, T, dtype=torch.float64)
future = torch.ones(T, T, dtype=torch.bool).triu(1)
scores = (q @ k.mT / D ** 0.5).masked_fill(future, -torch.inf)
p = scores.softmax(-1)                                          # (1, H, T, T)

# %% [markdown]
# One number at a time, then all at once, then as the library has it:

# %%
by_loop = torch.zeros_like(v)
for h in range(H):
    for i in range(T):
        for j in range(i + 1):
            by_loop[:, h, i] += p[:, h, i, j, None] * w[h, i, j] * v[:, h, j]
torch.testing.assert_close((p * w) @ v, by_loop)

# %%
from gptlib.time_weighting import TimeWeightedAttention

layer = TimeWeightedAttention(GPTConfig(vocab_size=1, block_size=T, n_head=H, n_embd=H * D)).double()
layer.table.data = w
torch.testing.assert_close(layer.attend(q, k, v, start=0), by_loop)

# %% [markdown]
# MyGPT has 3 layers, 8 heads, 512 channels and a block of 128. **Guess** how many numbers these tables add to its nine and a half million.

# %%
my_guess_extra = 100_000

# %% tags=["nbval-check-output"]
from dataclasses import replace

from gptlib.block import ATTENTIONS
from gptlib.model import GPT

mygpt = GPTConfig(vocab_size=65, block_size=128, n_layer=3, n_head=8, n_embd=512, bias=True)
with torch.device("meta"):                                      # shapes without numbers: counting is free
    count = {name: GPT(replace(mygpt, attention=name)).parameter_table()["total"] for name in ATTENTIONS}
for name, n in count.items():
    print(f"{name:<15}{n:>12,}   {n - count['plain']:>+9,}")

# %%
print(f"you guessed {my_guess_extra:,}, it is {count['time_weighted'] - count['plain']:,}")
small = GPT(GPTConfig(vocab_size=9, block_size=128, n_layer=1, n_head=1, n_embd=8, attention="time_weighted"))
small(torch.arange(128)[None] % 9).square().mean().backward()
idle = (small.blocks[0].attention.table.grad == 0).float().mean().item()
print(f"share of them that never gets a gradient: {idle:.1%}")

# %% [markdown]
# Nearly half of the table stands above the diagonal, where keys lie in the future. It is carried along and never learns.
#
# ## What was claimed
#
# MyGPT published training losses, one run each. "Tuned" has the tables:

# %% tags=["nbval-check-output"]
published = {1: (2.647, 2.620), 50: (1.085, 1.004), 100: (0.807, 0.710), 150: (0.685, 0.609)}
print(f"{'epoch':>5}{'plain':>9}{'tuned':>9}")
for epoch, (plain, tuned) in published.items():
    print(f"{epoch:>5}{plain:>9.3f}{tuned:>9.3f}")

# %% [markdown]
# A training loss below 0.7 on a text of a million characters is mostly memory. There is no validation loss and no second seed. And the tuned run had *two* new things: the tables, and *token shift*, where half of the channels come from one position before. One of them could be idle. Three claims, to be tested apart:
#
# 1. Time-weighting lowers the loss.
# 2. With it, a deep model needs no positional encoding.
# 3. There may be a closed form for the best weights.

# %% [markdown]
# ## One number for each distance
#
# "How far back" needs no table: one number $u_d$ for each distance will do, $w_{ij} = u_{i-j}$. MyGPT has this form too, and calls it circulant. By hand, in the library, and MyGPT's way (repeat the row T times, cut a little off, fold it one number shorter):

# %%
from torch.nn import functional as F
from gptlib.time_weighting import toeplitz

u = torch.rand(H, T, dtype=torch.float64)
by_hand = torch.zeros(H, T, T, dtype=torch.float64)
for i in range(T):
    for j in range(i + 1):
        by_hand[:, i, j] = u[:, i - j]
tiled = F.pad(u.flip(-1), (0, T)).repeat(1, T)[:, :-T].view(H, T, 2 * T - 1)[..., T - 1:]
assert torch.equal(toeplitz(u), by_hand) and torch.equal(tiled, by_hand)

# %%
from gptlib.plot import BLUE, COLORS, GREEN, GREY, ORANGE, PINK, RED, SKY, mark_level, new_figure, show

at = torch.arange(T)
circulant = u[:, (at[:, None] - at) % T]
fig, axes = new_figure(columns=2, width=7, height=3.3)
for ax, matrix, name in zip(axes, (toeplitz(u), circulant), ("Toeplitz, 0 for the future", "circulant: it wraps around")):
    ax.imshow(matrix[0], cmap="Blues", vmin=0, vmax=1)
    for i, j in torch.cartesian_prod(at, at).tolist():
        ax.text(j, i, f"{matrix[0, i, j]:.2f}", ha="center", va="center", color="white" if matrix[0, i, j] > 0.6 else "black")
    ax.set(title=name, xlabel="key", ylabel="query")
show(fig, "Two matrices of 6 by 6 weights. Both are constant along diagonals; the Toeplitz one is zero above the main diagonal, "
          "the circulant one repeats there the weights of the largest distances.")

# %% [markdown]
# Circulant is the wrong word. Each row of a circulant matrix is the one above it, moved right, and what falls off comes back on the left: above the diagonal stand weights for keys in the future. Constant diagonals without the wrap are called *Toeplitz*.

# %% [markdown]
# ### Break it once: is the mask still needed?
#
# A tempting thought: $w$ is 0 for every key in the future, so its value cannot get through, and the mask before the softmax can go. Chapter 2's test, on a model that drops it:

# %%
from copy import deepcopy

from gptlib.time_weighting import ToeplitzAttention

class Unmasked(ToeplitzAttention):
    def attend(self, q, k, v, start):
        p = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return (p * self.weight(k.shape[2])) @ (v * self.by_key[:, :k.shape[2], None])


def without_mask(model):
    model = deepcopy(model)
    for block in model.blocks:
        block.attention.__class__ = Unmasked                    # the same weights, another `attend`
    return model

# %% tags=["nbval-check-output"]
from gptlib.model import causality_gap

torch.manual_seed(1)
masked = GPT(GPTConfig(vocab_size=8, block_size=16, n_layer=2, n_head=4, n_embd=32, attention="toeplitz"))
idx = torch.randint(8, (2, 16))
for name, model in (("with its mask", masked), ("without", without_mask(masked))):
    print(f"{name:<14} {'sees the future' if causality_gap(model, idx, 8) > 1e-6 else 'sees no future'}")

# %% [markdown]
# The values of the future are gone, but its *scores* still stand in the denominator of the softmax: how much weight is left for the past tells what comes next. Does a model find that out? Give it pure noise, eight symbols drawn at random, where nobody can do better than ln 8.

# %%
from gptlib.config import TrainConfig
from gptlib.train import evaluate, train

noise = torch.randint(8, (60_000,), generator=torch.Generator().manual_seed(seed))
how = TrainConfig(max_steps=max_steps, batch_size=16, warmup=max_steps // 10, eval_interval=max(1, max_steps // 6), seed=seed)
on_noise = {name: train(model, noise[:50_000], noise[50_000:], 16, how, progress=False).history
            for name, model in (("without", without_mask(masked)), ("with its mask", masked))}

# %%
import math

fig, ax = new_figure(height=3.2)
for (name, history), color, style in zip(on_noise.items(), (RED, BLUE), ("s--", "o-")):
    ax.plot([row["step"] for row in history], [row["val_loss"] for row in history], style, color=color, label=name)
mark_level(ax, math.log(8), f"the best that anyone can do: ln 8 = {math.log(8):.3f}")
ax.set(xlabel="training step", ylabel="validation loss (nats)", ylim=(0, 2.4))
ax.legend(frameon=False, loc="lower left")
show(fig, "Validation loss on random symbols against steps: with its mask the model stays at ln 8, without it falls far below.")
print(", ".join(f"{name}: {history[-1]['val_loss']:.3f}" for name, history in on_noise.items()))

# %% [markdown]
# A loss below what is possible is a leak's signature. When such a model writes, there is no future to look at, and the gain is gone.

# %% [markdown]
# ## What it is equal to
#
# Fused attention kernels never show their weights, so nothing can be multiplied in. Must we give them up? A factor $a_j$ of each *key* goes with its value, and a factor $b_i$ of each *query* with its result:
#
# $$\sum_j p_{ij}\,(b_i\, a_j)\, v_j = b_i \sum_j p_{ij}\,(a_j v_j).$$

# %%
a, b = torch.randn(H, T, dtype=torch.float64), torch.randn(H, T, dtype=torch.float64)
fused = b[..., None] * F.scaled_dot_product_attention(q, k, a[..., None] * v, is_causal=True)
torch.testing.assert_close(fused, (p * b[:, :, None] * a[:, None, :]) @ v, rtol=1e-12, atol=1e-12)

# %% [markdown]
# Any other positive $w$: since $w\,e^{s} = e^{s + \log w}$, it is a *bias inside* the softmax, but divided by the old sum instead of the new one. The ratio of the two sums is one number for each query, a gate:
#
# $$\sum_j p_{ij} w_{ij} v_j = \underbrace{e^{\mathrm{LSE}(s_i + \log w_i) - \mathrm{LSE}(s_i)}}_{\text{gate } = \sum_j p_{ij} w_{ij}} \cdot \sum_j \mathrm{softmax}(s_i + \log w_i)_j\, v_j .$$

# %%
w = toeplitz(u) + future                                        # 1 for the future, whose logarithm is harmless
bias = w.log().masked_fill(future, -torch.inf)
gate = ((scores + bias).logsumexp(-1) - scores.logsumexp(-1)).exp()
biased = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
torch.testing.assert_close(gate[..., None] * biased, (p * w) @ v, rtol=1e-12, atol=1e-12)
torch.testing.assert_close(gate, (p * w).sum(-1), rtol=1e-12, atol=1e-12)

# %% [markdown]
# So time-weighting is a relative position bias (T5 has one) times a gate that depends on the data. The bias says where to look; the gate says how loudly to speak. What the softmax cannot do is a *negative* weight; split $w$ into its positive and its negative part, and take the difference:

# %%
signed = torch.randn(H, T, T, dtype=torch.float64)

def by_gate(w):
    inside = scores + w.clamp(min=1e-300).log()
    return (inside.logsumexp(-1) - scores.logsumexp(-1)).exp()[..., None] * (inside.softmax(-1) @ v)


torch.testing.assert_close(by_gate(signed) - by_gate(-signed), (p * signed) @ v, rtol=1e-12, atol=1e-12)

# %% [markdown]
# ### Before you look at weights, fix the gauge
#
# With factors for distances, keys and queries, many settings are one function. Tilt the distances by $e^{\lambda d}$, the keys by $e^{\lambda j}$, the queries by $e^{-\lambda i}$: since $d = i - j$, all of it cancels. A picture of $u$ alone could show anything.

# %% tags=["nbval-check-output"]
tilt = torch.exp(0.4 * torch.arange(T, dtype=torch.float64))
one = toeplitz(u) * a[:, None, :] * b[:, :, None]
other = toeplitz(u * tilt) * (a * tilt)[:, None, :] * (b / tilt)[:, :, None]
torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
print(f"the same attention, though u[{T - 1}] differs by a factor of {tilt[-1]:.1f}")

# %% [markdown]
# The library's Toeplitz form has factors for keys only, as MyGPT's. That leaves the scale alone free (and the value matrix can take up any scale too), so divide each head's $u$ by its largest before you plot it.
#
# ### It has relatives
#
# | | where distance enters |
# |---|---|
# | T5, ALiBi, KERPLE, FIRE | a bias inside the softmax: learned, linear, a kernel, a small network |
# | AFT, RWKV | a decay by distance, and no query–key product at all (RWKV grew out of time-weighting) |
# | Hyena | a long convolution: a Toeplitz matrix without a softmax |
# | gated attention | the gate without the bias |
# | NoPE | nothing: causal models learn without being told positions |
#
# The last one is the control that claim 2 needs.

# %% [markdown]
# ## Claim 3: a closed form
#
# Take one layer with everything else fixed: attention $p$, values, and a squared loss against targets $t_i$. With $f_{i,d} = p_{i,i-d}\,v_{i-d}$ the output is $\sum_d w_d f_{i,d}$, linear in $w$. Setting the gradient to zero gives the *normal equations*
#
# $$G\,w = c,\qquad G_{de} = \sum_i \langle f_{i,d}, f_{i,e}\rangle,\qquad c_d = \sum_i \langle f_{i,d}, t_i\rangle .$$

# %% [markdown]
# The simplest case on real text: attention is uniform, a value is the character itself (one-hot, less its mean), and the target is the next character. Then $G_{de}$ hardly depends on more than $d - e$, and this is Wiener's filter for predicting a signal (1949).
#
# **Guess:** the best weight of the *present* character in predicting the next: positive or negative?

# %%
my_guess_sign = "positive"

# %%
from gptlib.bigram import Bigram, count_bigrams
from gptlib.config import project_dir
from gptlib.data import load_corpus, split
from gptlib.tokenizer import CharTokenizer

text_corpus = load_corpus(corpus)
tokenizer = CharTokenizer.from_text(text_corpus.text)
train_ids, val_ids = split(torch.tensor(tokenizer.encode(text_corpus.text)))
V = tokenizer.vocab_size

# %%
frequency = torch.bincount(train_ids, minlength=V).double() / len(train_ids)
one_hot = torch.eye(V, dtype=torch.float64) - frequency         # row x: character x, less the mean

def overlap(ids, d, e):
    """Mean over i of ⟨f[i, d], f[i, e]⟩; e = -1 is the target. From counts of pairs, so nothing is sampled."""
    n = len(ids) - distances
    x, y = ids[distances - 1 - d:][:n], ids[distances - 1 - e:][:n]
    pairs = torch.bincount(x * V + y, minlength=V * V).view(V, V)
    return (pairs * (one_hot @ one_hot.T)).sum().item() / n

# %%
def normal_equations(ids):
    G = [[overlap(ids, d, e) for e in range(distances)] for d in range(distances)]
    return torch.tensor(G), torch.tensor([overlap(ids, d, -1) for d in range(distances)]), overlap(ids, -1, -1)


G, c, target_size = normal_equations(train_ids)
best = torch.linalg.solve(G, c)
print(f"you guessed {my_guess_sign}, it is {best[0]:.4f}; the next ones: {', '.join(f'{x:.4f}' for x in best[1:5])}")

# %% [markdown]
# Does gradient descent find the same, from samples, without ever seeing $G$?

# %%
draw = torch.Generator().manual_seed(seed)
found = torch.zeros(distances)
table = one_hot.float()
for step in range(2000):
    i = torch.randint(distances - 1, len(train_ids) - 1, (256,), generator=draw)
    f = table[train_ids[i[:, None] - torch.arange(distances)]]                  # (256, distances, V)
    error = torch.einsum("ndv,d->nv", f, found) - table[train_ids[i + 1]]
    found -= 0.4 / (1 + step / 200) * torch.einsum("ndv,nv->d", f, error) / 256
print(f"largest difference to the closed form: {(found - best).abs().max():.4f}")

# %%
autocorrelation = torch.tensor([overlap(train_ids, d, 0) for d in range(distances)]) / overlap(train_ids, 0, 0)
fig, (left, right) = new_figure(columns=2, width=9.5, height=3.2)
left.bar(range(distances), best, color=SKY, label="closed form")
left.plot(range(distances), found, "o", color=RED, markersize=4, label="gradient descent")
left.set(xlabel="characters back (0: the present one)", ylabel="best weight")
left.legend(frameon=False)
right.bar(range(1, distances), autocorrelation[1:], color=SKY)
right.set(xlabel="distance d", ylabel="likeness to the character d back")
for ax in (left, right):
    ax.axhline(0, color=GREY, linewidth=1)
show(fig, "Left: best weights by distance, bars from the closed form and dots from gradient descent, nearly equal; the nearest are "
          "negative. Right: autocorrelation of the text by distance, negative for the nearest distances.")

# %% [markdown]
# The nearest weights come out negative, because letters seldom repeat. A weight of one character on itself can say only "more of the same" or "less of the same", and the text says less:

# %%
same = (train_ids[1:] == train_ids[:-1]).double().mean().item()
print(f"a character follows itself: {same:.3f} of the time; if neighbours knew nothing of each other: {frequency.square().sum():.3f}")
G_val, c_val, size_val = normal_equations(val_ids)
explained = (2 * c_val @ best - best @ G_val @ best) / size_val
print(f"share of the variance that these weights explain, validation split: {explained:.4f}")

# %% [markdown]
# Two lessons. No bias inside a softmax could give these weights: exp is never negative. And weights by distance alone explain next to nothing of a text; it is the matrices around them that do the work.

# %% [markdown]
# ### What stays open
#
# A GPT minimises cross-entropy. With fixed values, say each character's log-lift $\log P(b\,|\,a) - \log P(b)$ for the next, the loss is still *convex* in $w$: one valley, whichever way you walk in. But its bottom solves no linear system. From two starts:

# %%
counts = count_bigrams(train_ids, V).double() + 0.1
lift = (counts / counts.sum(1, keepdim=True)).log() - frequency.clamp(min=1e-6).log()       # (V, V)
i = torch.randint(distances - 1, len(train_ids) - 1, (4000,), generator=draw)
values, target = lift[train_ids[i[:, None] - torch.arange(distances)]], train_ids[i + 1]    # (N, distances, V), (N,)

def descend(start):
    w = torch.full((distances,), start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=100, line_search_fn="strong_wolfe", tolerance_change=1e-12)
    loss = lambda: F.cross_entropy(frequency.clamp(min=1e-6).log() + torch.einsum("ndv,d->nv", values, w), target)
    def closure():
        optimizer.zero_grad()
        loss().backward()
        return loss()
    optimizer.step(closure)
    return w.detach(), loss().item()

# %%
(first, first_loss), (second, second_loss) = descend(0.0), descend(1.0)
print(f"losses {first_loss:.6f} and {second_loss:.6f}, weights apart by {(first - second).abs().max():.1e}")
print("weights:", ", ".join(f"{x:.3f}" for x in first[:5]), "…")

# %% [markdown]
# With values that know what follows, the present character gets a large positive weight, and its forerunners little. And as soon as attention and values learn too, nothing is convex any more.
#
# **Claim 3** therefore holds for a linear layer with a squared loss, and is open, most likely hopeless, for a GPT.

# %% [markdown]
# ## Claims 1 and 2, small and live
#
# Five arms, the same first weights, the same batches. Besides the two forms of time-weighting: T5's bias *inside* the softmax (one number for each distance), and token shift alone.

# %%
from gptlib.time_weighting import shift_tokens

x = torch.arange(1.0, 13).view(1, 3, 4)
print(x[0], shift_tokens(x)[0], sep="\n")

# %%
def start_of(arm, seed):
    """A model that starts as the plain one of that seed: the same weights wherever both have them."""
    torch.manual_seed(seed)
    plain = GPT(replace(config, vocab_size=V)).state_dict()
    model = GPT(replace(config, vocab_size=V, **arm))
    model.load_state_dict({name: plain.get(name, own) for name, own in model.state_dict().items()})
    return model


some_val = val_ids[:20_000]                                     # for curves; the leaderboard below uses the whole split

def train_arm(model, seed):
    how = TrainConfig(max_steps=max_steps, batch_size=batch_size, learning_rate=learning_rate, warmup=min(100, max_steps // 4),
                      eval_interval=max(1, max_steps // 5), seed=seed)
    return train(model, train_ids, some_val, block_size, how, progress=False).history

# %% [markdown]
# **Guess the order** after this short training, from the lowest loss to the highest.

# %%
my_guess_order = ["full table", "token shift", "Toeplitz", "bias inside", "plain"]

# %%
from tqdm.auto import tqdm

arms = {"plain": {}, "full table": {"attention": "time_weighted"}, "Toeplitz": {"attention": "toeplitz"},
        "bias inside": {"attention": "relative_bias"}, "token shift": {"token_shift": True}}
models, curves = {}, {arm: [] for arm in arms}
for arm, run_seed in tqdm([(arm, seed + n) for n in range(n_seeds) for arm in arms], desc="runs"):
    models[arm] = start_of(arms[arm], run_seed)
    history = train_arm(models[arm], run_seed)
    curves[arm].append([row["val_loss"] for row in history])

# %%
import numpy as np

bigram_loss, _ = evaluate(Bigram.from_counts(count_bigrams(train_ids, V)), some_val, block_size)
STYLE = {"plain": (GREY, "o-"), "full table": (ORANGE, "s--"), "Toeplitz": (BLUE, "^-"), "bias inside": (GREEN, "v-."),
         "token shift": (PINK, "D:")}
fig, ax = new_figure(height=3.6)
for arm, (color, style) in STYLE.items():
    mean, std = np.mean(curves[arm], 0), np.std(curves[arm], 0, ddof=1)
    ax.errorbar([row["step"] for row in history][1:], mean[1:], std[1:], fmt=style, color=color, label=arm, capsize=3, markersize=5)
mark_level(ax, bigram_loss, f"bigram = {bigram_loss:.3f}")
ax.set(xlabel="training step", ylabel="validation loss (nats)", title=f"mean and standard deviation of {n_seeds} seeds")
ax.legend(frameon=False)
show(fig, f"Validation loss against steps for five arms, mean and standard deviation over {n_seeds} seeds.")

# %%
ends = {arm: np.array(curve)[:, -1] for arm, curve in curves.items()}
order = sorted(ends, key=lambda arm: ends[arm].mean())
print(f"you guessed {my_guess_order},\n     it is {order}")
for arm in order:
    print(f"{arm:<13}{ends[arm].mean():.3f} ± {ends[arm].std(ddof=1):.3f}  ({n_seeds} seeds)")

# %% [markdown]
# That is a first look, at an early age. The measurement follows.

# %% [markdown]
# ## The measurement
#
# `benchmarks/time_weighting.py` (part of `make measure`) trains every combination of attention, positions and token shift, with three seeds. Plain attention also trains longer, so that a slower arm can be held against plain attention that was given the *same CPU time*. Its results are committed:

# %%
import json

measured = json.loads((project_dir() / "benchmarks/time_weighting.json").read_text(encoding="utf-8"))
print(f"{len(measured['runs'])} runs, {measured['date']}, {measured['machine']}, torch {measured['torch']}")
shape, how = measured["model"], measured["training"]
print(", ".join(f"{name} {shape[name]}" for name in ("n_layer", "n_embd", "n_head", "block_size")), end=", ")
print(", ".join(f"{name} {how[name]}" for name in ("max_steps", "batch_size", "learning_rate")))

# %%
NAMES = {"plain": "plain", "time_weighted": "full table", "toeplitz": "Toeplitz", "relative_bias": "bias inside"}
STEPS = measured["training"]["max_steps"]

def last_losses(attention, position="learned", shift=False, steps=STEPS, loss="val_loss", corpus="tinyshakespeare"):
    """By seed: the last loss of each run of that arm."""
    wanted = (attention, position, shift, steps, corpus)
    return np.array([run["curve"][-1][loss] for run in sorted(measured["runs"], key=lambda run: run["seed"])
                     if (run["attention"], run["position"], run["token_shift"], run["steps"], run["corpus"]) == wanted])


GROUPS = [(position, shift) for shift in (False, True) for position in ("learned", "none")]
title = lambda position, shift: f"{'no' if position == 'none' else position} positions, {'with' if shift else 'no'} token shift"

# %%
fig, axes = new_figure(columns=2, rows=2, width=9, height=4.6, sharex=True, sharey=True)
for ax, group in zip(axes.flat, GROUPS):
    for y, (attention, name) in enumerate(NAMES.items()):
        losses = last_losses(attention, *group)
        ax.plot(losses, [y] * len(losses), "o", color=STYLE[name][0], alpha=0.4, markersize=5)
        ax.errorbar(losses.mean(), y, xerr=losses.std(ddof=1), fmt="|", color=STYLE[name][0], markersize=16, capsize=4)
    ax.set(title=title(*group), yticks=range(len(NAMES)), yticklabels=NAMES.values(), ylim=(3.6, -0.6))
for ax in axes[1]:
    ax.set(xlabel="validation loss (nats), last step")
show(fig, "Final validation losses of the sixteen arms in four panels, each with three seeds, mean and standard deviation.")

# %% [markdown]
# Each dot is a seed. Runs of one seed share first weights and batches in every arm, so the fair comparison is seed by seed: the mean of the *differences* to plain attention, and their standard deviation. We call a difference clear if its mean exceeds twice that deviation.

# %%
def says(differences):
    mean, std = differences.mean(), differences.std(ddof=1)
    verdict = ("lower" if mean < 0 else "higher") if abs(mean) > 2 * std else "no clear difference"
    return f"{mean:+.4f} ± {std:.4f} ({verdict})"


print(f"against plain attention of the same group, {STEPS} steps each, {len(last_losses('plain'))} seeds")
for group in GROUPS:
    print(title(*group))
    for attention, name in list(NAMES.items())[1:]:
        print(f"    {name:<13}{says(last_losses(attention, *group) - last_losses('plain', *group))}")

# %% [markdown]
# ### At equal CPU time
#
# A run's own seconds depend on what else the machine was doing. So the cost of a step was measured apart, as CPU time on one thread, a few steps of each arm in turn, over and over; the median counts. Plain attention gets as many steps as an arm's time would pay for (read between its shorter and its longer runs).

# %%
cost = {(row["attention"], row["position"], row["token_shift"]): row["ms_per_step"] for row in measured["cost"]}
longest = max(run["steps"] for run in measured["runs"] if run["corpus"] == "tinyshakespeare")

def plain_for_the_time_of(attention, position, shift):
    """Plain attention's last losses, had it trained as long as that arm did, between its two budgets on a log scale."""
    steps = STEPS * cost[attention, position, shift] / cost["plain", position, shift]
    between = np.log(steps / STEPS) / np.log(longest / STEPS)
    short, long = (last_losses("plain", position, shift, steps) for steps in (STEPS, longest))
    return short + between * (long - short)

# %%
for group in GROUPS:
    print(title(*group))
    for attention, name in list(NAMES.items())[1:]:
        ratio = cost[attention, *group] / cost["plain", *group]
        print(f"    {name:<13}{ratio:.2f} times the cost   {says(last_losses(attention, *group) - plain_for_the_time_of(attention, *group))}")

# %%
fig, axes = new_figure(columns=2, width=9.5, height=3.6, sharey=True)
for ax, position in zip(axes, ("learned", "none")):
    for attention, name in NAMES.items():
        runs = [run["curve"] for run in measured["runs"] if (run["attention"], run["position"], run["token_shift"], run["steps"],
                run["corpus"]) == (attention, position, False, STEPS, "tinyshakespeare")]
        seconds = np.array([row["step"] for row in runs[0]]) * cost[attention, position, False] / 1000
        mean = np.mean([[row["val_loss"] for row in curve] for curve in runs], 0)
        ax.plot(seconds[1:], mean[1:], STYLE[name][1], color=STYLE[name][0], label=name, markersize=5)
    ax.set(xlabel="CPU seconds of training", title=title(position, False))
axes[0].set(ylabel="validation loss (nats)")
axes[0].legend(frameon=False)
show(fig, "Validation loss against CPU seconds of training for the four kinds of attention, with and without learned positions; means of three seeds.")

# %% [markdown]
# The curves end where their runs end, each at the bottom of its own learning-rate schedule; halfway down, curves flatter those that are ahead in their schedule. That is why the table above compares whole runs.

# %% [markdown]
# ### Where the gain comes from
#
# In the Little Theatre the true probability of every character is known, and what it depends on. So a model's excess over the floor splits by *kind of dependency*. Six arms, each against plain attention with learned positions:

# %%
KINDS = list(next(run for run in measured["runs"] if "gap_by_kind" in run)["gap_by_kind"])
STAGE = {"plain": ("plain", "learned", False), "Toeplitz": ("toeplitz", "learned", False),
         "bias inside": ("relative_bias", "learned", False), "token shift": ("plain", "learned", True),
         "plain, no positions": ("plain", "none", False), "Toeplitz, no positions": ("toeplitz", "none", False)}

def gaps(arm):
    """(seeds, kinds): excess nats per play."""
    return np.array([[run["gap_by_kind"][kind] for kind in KINDS] for run in sorted(measured["runs"], key=lambda run: run["seed"])
                     if "gap_by_kind" in run and (run["attention"], run["position"], run["token_shift"]) == STAGE[arm]])


print(f"{'excess nats per play':<24}{'all':>8}" + "".join(f"{kind:>10}" for kind in KINDS))
for arm in STAGE:
    print(f"{arm:<24}{gaps(arm).sum(1).mean():>8.2f}" + "".join(f"{gap:>10.2f}" for gap in gaps(arm).mean(0)))

# %%
fig, ax = new_figure(width=9, height=3.8)
for n, (arm, color) in enumerate(zip(list(STAGE)[1:], (BLUE, GREEN, PINK, GREY, SKY))):
    difference = gaps(arm) - gaps("plain")
    ax.bar(np.arange(len(KINDS)) + 0.16 * (n - 2), difference.mean(0), 0.16, yerr=difference.std(0, ddof=1), color=color, label=arm,
           hatch=("", "//", "", "..", "//")[n], error_kw={"linewidth": 1})
ax.axhline(0, color=GREY, linewidth=1)
ax.set_xticks(range(len(KINDS)), KINDS)
ax.set(ylabel="nats per play, against plain", title="below 0: better than plain attention with learned positions")
ax.legend(frameon=False)
show(fig, "Excess nats per play of five arms, less those of plain attention with learned positions, by kind of dependency, "
          "mean and standard deviation over three seeds.")

# %% [markdown]
# ### What the weights become
#
# The learned $u$ of one seed, each head divided by its own largest. A peak at 1 is a head that reads the previous token.

# %%
learned = next(run for run in measured["runs"] if "by_distance" in run and (run["attention"], run["position"], run["token_shift"])
               == ("toeplitz", "learned", False))
fig, axes = new_figure(columns=len(learned["by_distance"]), width=9.5, height=3, sharey=True)
for n, (ax, heads) in enumerate(zip(axes, learned["by_distance"])):
    for head, color, style in zip(np.array(heads), COLORS, ("o-", "s--", "^-.", "v:")):
        ax.plot(head[:16] / np.abs(head).max(), style, color=color, markersize=4)
    ax.axhline(0, color=GREY, linewidth=1)
    ax.set(title=f"layer {n + 1}, four heads", xlabel="distance")
axes[0].set(ylabel="weight / largest")
show(fig, "Learned weights by distance for the four heads of each of three layers, each divided by its largest.")

# %%
shifted = next(run for run in measured["runs"] if "by_distance" in run and (run["attention"], run["position"], run["token_shift"])
               == ("toeplitz", "learned", True))
for name, run in (("no token shift", learned), ("with token shift", shifted)):
    u = np.array(run["by_distance"])                            # (layers, heads, distances)
    print(f"{name:<17} first layer, u[1] / u[0] by head: {', '.join(f'{ratio:.1f}' for ratio in u[0, :, 1] / u[0, :, 0])}"
          f"; negative weights: {(u < 0).mean():.1%}")

# %% [markdown]
# ## The verdicts
#
# Computed from the runs, by the rule above: a case holds if the difference is clear and on the claim's side.

# %%
def held(differences):
    return differences.mean() < -2 * differences.std(ddof=1)


def verdict(claim, cases):
    """Print the claim and how it fares; `cases` are pairs of a condition and differences by seed, below 0 where the claim is right."""
    yes = [name for name, differences in cases if held(differences)]
    no = [name for name, differences in cases if not held(differences)]
    print(claim, "→", "holds" if not no else "fails" if not yes else f"holds in {len(yes)} of {len(cases)} cases")
    for name, differences in cases:
        print(f"    {'holds' if name in yes else 'does not':<9} {differences.mean():+.4f} ± {differences.std(ddof=1):.4f}  {name}")

# %% [markdown]
# ### 1 · Time-weighting lowers the loss

# %%
for attention in ("time_weighted", "toeplitz"):
    for at, plain in (("equal steps", last_losses), ("equal CPU time", None)):
        against = lambda group: last_losses("plain", *group) if plain else plain_for_the_time_of(attention, *group)
        verdict(f"{NAMES[attention]}, {at}", [(title(*group), last_losses(attention, *group) - against(group)) for group in GROUPS])

# %% [markdown]
# At equal steps, knowing the distance helps, and one number for each distance helps several times as much as the full table. At equal CPU time little is left where positions are known anyway: fused attention is faster, and the steps it gains buy as much.
#
# And is it time-*weighting* that helps, or any knowledge of distance? Two controls: a bias inside the softmax, without a gate; and token shift, which came along unannounced.

# %%
print("MyGPT's comparison, taken apart: against plain attention, learned positions, equal steps")
for name, arm in {"tables alone": ("time_weighted", "learned", False), "token shift alone": ("plain", "learned", True),
                  "both, as published": ("time_weighted", "learned", True)}.items():
    print(f"    {name:<20}{says(last_losses(*arm) - last_losses('plain'))}")

# %%
verdict("the full table is below a bias inside", [(title(*group), last_losses("time_weighted", *group) - last_losses("relative_bias", *group))
                                                  for group in GROUPS])
verdict("Toeplitz is below a bias inside", [(title(*group), last_losses("toeplitz", *group) - last_losses("relative_bias", *group))
                                            for group in GROUPS])

# %% [markdown]
# Both controls do at least as well. A bias inside the softmax, which came first, beats weights after it. Token shift alone brings at least what the tables bring, and beside it the tables bring next to nothing. **Verdict 1: holds at equal steps, for distances more than for tables; but it is no merit of the place after the softmax, and at equal CPU time it mostly fails.**

# %% [markdown]
# ### 2 · With it, no positional encoding is needed
#
# Needed for what? Without positions it should do as well as with them, and better than plain attention with them. The control is plain attention that loses its positions.

# %%
for attention, name in NAMES.items():
    verdict(f"{name}: no positions are better than learned ones", [
        (f"{'with' if shift else 'no'} token shift", last_losses(attention, "none", shift) - last_losses(attention, "learned", shift))
        for shift in (False, True)])

# %%
verdict("without positions, below plain attention with them", [
    (f"{NAMES[attention]}, {'with' if shift else 'no'} token shift", last_losses(attention, "none", shift) - last_losses("plain", "learned", shift))
    for shift in (False, True) for attention in NAMES])

# %% [markdown]
# **Verdict 2: holds when the weights go by distance, not for the full table.** Toeplitz weights without positions are as good as with them; so is the bias inside. With token shift every arm is even better *without* learned positions, plain attention included, which then has no weights on time at all. So time-weighting is one way to tell the order among several.

# %% [markdown]
# **Verdict 3: holds for a linear layer under a squared loss,** where the normal equations give the weights and gradient descent agrees; for a GPT it remains open.
#
# Mind the limits: one small shape, a short training, one learning rate for all arms, three seeds, a text without long memory. Whether the gains last through 150 epochs of MyGPT's own size takes a GPU; the presets below are ready.


# %% [markdown]
# ## Exercises
#
# Write each function, then run the cell below it: it tells you whether the function is right, and if not, what to look at. Hints and solutions are folded away.

# %% [markdown]
# ### Exercise 1 · A matrix of distances
#
# Without a loop over queries: `u[h, i - j]` at `[h, i, j]` where the key j is not in the future, else 0.
#
# `[[5, 3, 2]]` becomes `[[[5, 0, 0], [3, 5, 0], [2, 3, 5]]]`.

# %%
def distance_matrix(u):
    """u (H, T), one weight for each head and distance: (H, T, T), with rows for queries and columns for keys."""
    ...


# %%
from gptlib.exercises import time_weighting as exercises

exercises.check_distance_matrix(distance_matrix)


# %% [markdown]
# <details><summary>Hint</summary>
#
# A column of positions less a row of positions holds all distances. Index `u[:, …]` with it; negative ones would count from the end, so clamp them, then multiply by what is allowed.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def distance_matrix(u):
#     at = torch.arange(u.shape[1], device=u.device)
#     d = at[:, None] - at                                            # (T, T)
#     return u[:, d.clamp(min=0)] * (d >= 0)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 2 · Token shift
#
# The first C // 2 channels of each position are replaced by those of the position before; the first position gets zeros there. The other channels stay.
#
# `[[[1, 2], [3, 4], [5, 6]]]` becomes `[[[0, 2], [1, 4], [3, 6]]]`.

# %%
def token_shift(x):
    """x (B, T, C): a new (B, T, C) whose first C // 2 channels come from one position before."""
    ...


# %%
exercises.check_token_shift(token_shift)


# %% [markdown]
# <details><summary>Hint</summary>
#
# `x.roll(1, dims=1)` is nearly it, and leaks: what falls off the end comes back at the beginning. Put zeros there.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def token_shift(x):
#     half = x.shape[-1] // 2
#     before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
#     return torch.cat([before[..., :half], x[..., half:]], dim=-1)
# ```
#
# </details>

# %% [markdown]
# ### Exercise 3 · The gate
#
# For each query i, over its keys 0 … i: the factor by which biased attention (scores + log w) must be multiplied to become time-weighting. Scores come unmasked and may be large; w is positive.
#
# With scores all 0 and `w = [[2, 1], [1, 3]]` the gates are `[2, 2]`.

# %%
def gate(scores, w):
    """scores and w (T, T) each, rows for queries: the gates, (T,)."""
    ...


# %%
exercises.check_gate(gate)


# %% [markdown]
# <details><summary>Hint</summary>
#
# It is a mean of w. Or, as fused kernels can give it: the exp of a difference of two `logsumexp`s, both of them masked.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def gate(scores, w):
#     seen = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
#     return ((seen + w.log()).logsumexp(-1) - seen.logsumexp(-1)).exp()
# ```
#
# </details>

# %% [markdown]
# ### Exercise 4 · The best weights
#
# One weight for each of D parts, so that Σ_d w_d f_d comes closest to the target, in squares summed over positions and channels. Build G and c, and solve.
#
# For one channel, `f = [[[1], [1]], [[0], [1]]]` and target `[[3], [2]]`: G is `[[1, 1], [1, 2]]`, c is `[3, 5]`, and the weights are `[1, 2]`.

# %%
def best_weights(f, target):
    """f (N, D, C), target (N, C): the weights, (D,)."""
    ...


# %%
exercises.check_best_weights(best_weights)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `torch.einsum("ndc,nec->de", f, f)` sums over positions and channels at once. `torch.linalg.solve(G, c)` gives w.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def best_weights(f, target):
#     G = torch.einsum("ndc,nec->de", f, f)
#     c = torch.einsum("ndc,nc->d", f, target)
#     return torch.linalg.solve(G, c)
# ```
#
# </details>

# %% [markdown]
# ## The leaderboard so far
#
# The live Toeplitz model of the last seed, on the whole validation split. It was trained for a moment only; the chapters before took longer.

# %%
from gptlib.leaderboard import leaderboard, read_results, save_result

out, model = project_dir() / out_dir, models["Toeplitz"]
val_loss, val_accuracy = evaluate(model, val_ids, block_size)
save_result(out, chapter="06_time_weighting", model="Toeplitz GPT", parameters=model.parameter_table()["total"], val_loss=val_loss,
            val_acc=val_accuracy, seconds=history[-1]["seconds"], vocab_size=V, corpus=text_corpus, val_text=tokenizer.decode(val_ids),
            seed=seed + n_seeds - 1, steps=max_steps, block_size=block_size, live={arm: list(losses) for arm, losses in ends.items()})
print(leaderboard(read_results(out.parent, text_corpus)))

# %% [markdown]
# ## What you know now
#
# - Time-weighting is a relative position bias inside the softmax times a gate outside it, to the last digit.
# - Its best weights have a closed form where the loss is quadratic, and there they can be negative.
# - A claim about two changes made at once is a claim about neither. Each needs an arm of its own, and seeds.
#
# In any run of chapter 4: `attention` and `token_shift` are parameters. MyGPT's own size, each trick apart: `make train PRESET=mygpt_weighted`, `mygpt_toeplitz`, `mygpt_shifted`, `mygpt_tuned` (both), beside `mygpt`.

# %% [markdown]
# **Where this comes from.** Time-weighting and token shift: B. Peng, in the code that became RWKV ([2023](https://arxiv.org/abs/2305.13048)); the tables, the name and the claims tested here: MyGPT. T5's bias: Raffel et al. ([2020](https://arxiv.org/abs/1910.10683)); ALiBi: Press et al. ([2022](https://arxiv.org/abs/2108.12409)); KERPLE: Chi et al. ([2022](https://arxiv.org/abs/2205.09921)); FIRE: Li et al. ([2024](https://arxiv.org/abs/2310.04418)); AFT: Zhai et al. ([2021](https://arxiv.org/abs/2105.14103)); Hyena: Poli et al. ([2023](https://arxiv.org/abs/2302.10866)); NoPE: Haviv et al. ([2022](https://arxiv.org/abs/2203.16634)), Kazemnejad et al. ([2023](https://arxiv.org/abs/2305.19466)); gated attention: Qiu et al. ([2025](https://arxiv.org/abs/2505.06708)); the filter: Wiener (1949).
#
# **Next:** [chapter 7](07_context_rolling.ipynb) carries a memory from window to window.
