"""The opening of ``--help`` of Lightning's verbs: the verb's own line, then the flags that most runs need."""

from guardreasoner.cli import LIGHTNING

_EVERYDAY = {
    "fit": (
        ("--config FILE", "the run, such as configs/hsdpo.yaml; again for each overlay"),
        ("--output FOLDER", "where the model is written (default: of the config)"),
        ("--data.source.train FILE", "your own rows, with a config of guardreasoner.Files"),
        ("--data.epochs N", "passes over the data"),
        ("--recipe.base MODEL", "model that R-SFT starts from, a folder or a hub id"),
        ("--recipe.checkpoints FOLDER", "folder of all models; --recipe.logs for all other outputs"),
        ("--seed_everything N", "seed of the run"),
        ("--trainer.max_time 00:08:00:00", "stop after this time (days:hours:minutes:seconds)"),
        ("--overwrite", "replace an output that another command made"),
    ),
    "test": (
        ("--config FILE", "configs/evaluate.yaml or configs/robustness.yaml; again for each overlay"),
        ("--all", "test every model that fit has written"),
        ("--model.backbone.path MODEL", "the model to test"),
        ("--output FOLDER", "where the predictions are written"),
        ("--data.split validation", "the validation records, to choose thresholds on"),
        ("--data.rollouts null", "without a hard set"),
        ("--recipe.speed direct", "answer at once, without reasoning"),
    ),
    "predict": (
        ("--config FILE", "configs/mine.yaml or configs/synthesize.yaml; again for each overlay"),
        ("--model.backbone.path MODEL", "the model to sample from"),
        ("--output FOLDER", "where the rollouts are written"),
        ("--model.k N", "outputs for each record"),
        ("--recipe.temperature T", "sampling temperature"),
        ("--dry_run", "only estimate the cost of a teacher"),
    ),
    "validate": (
        ("--config FILE", "the config of the fit; again for each overlay"),
        ("--model.backbone.path MODEL", "the model to validate"),
    ),
}


def opening(verb: str) -> str:
    """Return what the help of a verb opens with."""
    flags = _EVERYDAY[verb]
    width = max(len(flag) for flag, _ in flags)
    listed = "\n".join(f"  {flag:<{width}}  {meaning}" for flag, meaning in flags)
    return (
        f"python -m guardreasoner {verb}: {LIGHTNING[verb]}\n\nEveryday options:\n{listed}\n\n"
        "A class's own options: --model.help CLASS, --data.help CLASS. Words: docs/glossary.md. All options follow.\n\n"
    )
