"""Section on what limits the speed, from profiles."""

SECTION = """## What limits the speed

Shares of the time of a step on 8 pairs (two cores) and of sampling (64 outputs at once, one core), measured by hand
with `torch.profiler` on an AMD EPYC with AVX-512 at hidden size 512, 3 layers, vocabulary 12,000, float32:

| | HS-DPO, full weights | sampling |
|---|---|---|
| products with weights | 59 % | 36 % |
| attention | 13 % | 33 % |
| copies and zeros, such as rows that pad a product | 13 % | 5 % |
| all else: norms, activations, softmax over the vocabulary; in sampling also masks and the draw | 15 % | 26 % |

- **Products.** PyTorch multiplies float32 matrices with MKL, which keeps to AVX2 on processors that are not from Intel.
  There our side uses oneDNN, whose products take about half the time (`guardreasoner/model/linear_layer.py`): HS-DPO at
  3 × TRL's best instead of 2 ×. With MKL on both sides, HS-DPO was at 2.0 ×, R-SFT at 1.65 ×, sampling at 3.1 ×;
  processors from Intel were not measured. The measured rate of products is that of the faster library, so both sides'
  shares of the limit are shares of the whole processor. The memory in the tables above was measured while oneDNN still
  copied the larger matrix of a product (842 instead of 662 MB in HS-DPO with micro-batches of one pair); since then,
  the profiled process takes 1.30 GB with oneDNN and 1.29 GB without.
- **A larger share of the limit in training** needs fewer passes over memory around the products: norms, rotations and
  activations fused with them, and rows that need no padding.
- **Sampling.** Attention reads the cached keys and values at about 15 GB/s on one core, so it takes longer for longer
  outputs, whatever the products cost.
- **The demo's model** (0.65 M parameters, hidden size 128), on a Xeon with AVX-512: a step of R-SFT takes 82 ms on one
  thread, 39 % of it in products at the full rate of 150 GFLOP/s and 18 % in attention; the rest are element-wise
  operations. It takes 54 ms on two threads; two that never wait would take 41 ms. With 128 outputs at once, two threads
  sample 1.4 × as fast as one, since Python holds them up; with 512, 1.7 ×.
- **Tried without gain:** another memory allocator for that model (81 ms); for larger ones, weights packed for oneDNN
  beforehand, a second copy of all weights, save nothing at 64 rows (0.40 instead of 0.42 ms for 64 × 512 × 1,376) and
  0.05 ms a product at 16 rows; MKL's packed products take as long as its plain ones (0.85 ms).
"""
