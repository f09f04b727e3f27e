"""From nothing to the shipped files: `python -m training.train`.

Stages: codec, its gate, text encoder with transformer, export, evaluation. Each goes on from its
checkpoint in the work folder. `--from-shipped` starts from the shipped weights instead of random
ones and keeps their codec: the way to train on.
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
from transformers import Qwen2Tokenizer, Qwen3ForCausalLM

from training.evaluate import evaluate
from training.export import SHIPPED, load_pipeline, save_pipeline
from training.flow import FIRST_POOL, LEARNING_RATE, FlowPlan, FlowTrainer
from training.gate import require_gate
from training.model import build_text_encoder, build_transformer
from training.report import as_markdown
from training.tokenizer import build_tokenizer
from training.vae import build_vae, train_vae

VAE_STEPS = 2600
VAE_POOL = 24_000
Parts = tuple[AutoencoderKLFlux2, Qwen2Tokenizer, Qwen3ForCausalLM, Flux2Transformer2DModel]


def untrained(seed: int) -> Parts:
    """All four parts, weights drawn from the seed."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    return build_vae(), tokenizer, build_text_encoder(len(tokenizer)), build_transformer()


def shipped() -> Parts:
    """All four parts as shipped, in fp32."""
    pipe = load_pipeline(SHIPPED)
    return pipe.vae, pipe.tokenizer, pipe.text_encoder, pipe.transformer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train tiny-klein.")
    parser.add_argument("--work", type=Path, default=Path("build/tiny_klein"))
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--steps", type=int, default=20_000, help="of the transformer")
    parser.add_argument("--vae-steps", type=int, default=VAE_STEPS)
    parser.add_argument("--pool", type=int, default=FIRST_POOL, help="samples to begin with")
    parser.add_argument("--count", type=int, default=100, help="pictures a kind in the evaluation")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--from-shipped", action="store_true")
    parser.add_argument("--no-compile", action="store_true", help="where there is no C++ compiler")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)

    vae, tokenizer, text_encoder, transformer = shipped() if args.from_shipped else untrained(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for module in (vae, text_encoder, transformer):
        module.to(device)
    if not args.from_shipped:
        train_vae(vae, args.vae_steps, VAE_POOL, args.work / "vae.pt", args.seed)
    print("codec gate:", require_gate(vae.eval()))
    plan = FlowPlan(
        steps=args.steps,
        learning_rate=args.learning_rate,
        first_pool=args.pool,
        seed=args.seed,
        compiled=not args.no_compile,
    )
    trainer = FlowTrainer(vae, tokenizer, text_encoder, transformer, plan, args.work / "flow.pt")
    trainer.run()
    best = {name: module.cpu() for name, module in trainer.average.modules.items()}
    save_pipeline(args.out, vae.cpu(), tokenizer, best["text_encoder"], best["transformer"])
    print(as_markdown(evaluate(load_pipeline(args.out), count=args.count, steps=4)))


if __name__ == "__main__":
    main()
