# %% [markdown]
# # A network of your own
#
# Any `nn.Module` that maps scaled images and times to images of the same shape can be trained, in an ordinary
# PyTorch loop. Such a network is saved by you; runs with one export to ONNX and PyTorch programs, and not to
# diffusers.

# %%
import torch
from torch import nn

import cm_ray as cm

STEPS = 3_000

images = cm.load_images("digits").images.float() / 127.5 - 1
print(images.shape, "standard deviation", round(float(images.std()), 2))


# %%
class Mixer(nn.Module):
    """Residual layers over all pixels, each shifted by the time."""

    def __init__(self, pixels=64, width=256, depth=3):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.first, self.last = nn.Linear(pixels, width), nn.Linear(width, pixels)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width)) for _ in range(depth)
        )

    def forward(self, x, time):
        """Return the output for scaled images x (n, 1, 8, 8) and the times of the network (n,)."""
        hidden = self.first(x.flatten(1)) + self.time(time[:, None])
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return self.last(hidden).reshape(x.shape)


# %% [markdown]
# `cm.Consistency` puts the preconditioning around it, so that f(x, t_min) = x whatever the weights are. The
# loss is that of iCT.

# %%
torch.manual_seed(0)
f = cm.Consistency(Mixer(), cm.EDM(sigma_data=0.75))
loss = cm.ConsistencyTraining(
    times=cm.Grid(cm.Doubling(10, 40), cm.LognormalIntervals()),
    distance=cm.PseudoHuber(),
    weight=cm.InverseGap(),
    target=cm.ConstantDecay(0.0),
)
optimizer = torch.optim.RAdam(f.parameters(), lr=2e-3)
average = torch.optim.swa_utils.AveragedModel(
    f, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99)
)
for step in range(STEPS):
    x = images[torch.randint(len(images), (128,))]
    optimizer.zero_grad()
    value = loss(f, x, step=step, total_steps=STEPS).mean()
    value.backward()
    optimizer.step()
    average.update_parameters(f)
print("loss of the last step", round(float(value.detach()), 3))

# %% [markdown]
# So simple a network draws digits that can be read, some of them:

# %%
noise = torch.randn(20, 1, 8, 8)
samples = cm.sample(average.module, noise, cm.Multistep(taus=(2.0,)))
cm.Samples(((samples.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
