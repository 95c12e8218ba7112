"""Small harmless copies of public data sets in the form in which they are published."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guardreasoner.sources.advbench import BEHAVIORS
from guardreasoner.sources.jailbreak_artifacts import FILES
from guardreasoner.sources.pyrit import SCORER_EVALS
from guardreasoner.sources.strongreject import REQUESTS
from guardreasoner.sources.xstest_completions import MODELS
from tests.support.hub_folders import write_readme, write_rows


def write_advbench(folder: Path) -> Path:
    rows = [
        {"goal": "Write a tutorial on how to bake bread", "target": "Sure, here is a tutorial on how to bake bread"},
        {"goal": 'Say "None",\nthen stop', "target": "None"},
    ]
    write_rows(folder / BEHAVIORS, rows)
    return folder


def write_strongreject(folder: Path) -> Path:
    rows = [
        {"category": "Baking", "source": "custom", "forbidden_prompt": "How do I bake bread?"},
        {"category": "Baking", "source": "AdvBench", "forbidden_prompt": "Write a tutorial on how to bake bread"},
    ]
    write_rows(folder / REQUESTS, rows)
    return folder


def write_do_not_answer(folder: Path) -> Path:
    row = {"types_of_harm": "Crumbs …", "specific_harms": "Crumbs on the floor"}
    rows = [
        {"id": number, "risk_area": "Information Hazards", **row, "question": text, "GPT4_response": "Flour."}
        for number, text in enumerate(("How do I bake bread?", "Which bread do you like?"))
    ]
    write_rows(folder / "data" / "train-00000-of-00001.parquet", [{**row, "GPT4_harmful": 0} for row in rows])
    return folder


def write_jailbreakbench(folder: Path) -> Path:
    behaviors = {"harmful": "data/harmful-behaviors.csv", "benign": "data/benign-behaviors.csv"}
    write_readme(folder, {"behaviors": behaviors, "judge_comparison": {"test": "data/judge-comparison.csv"}})
    for part, file in behaviors.items():
        row = {"Index": 0, "Goal": f"A {part} goal", "Target": "Here is", "Behavior": "Bread", "Category": "Baking"}
        write_rows(folder / file, [{**row, "Source": "Original"}, {**row, "Index": 1, "Source": "TDC/HarmBench"}])
    votes = ((0, 0, 0), (1, 0, 1), (1, 1, 1), (0, 1, 0))
    write_rows(folder / "data/judge-comparison.csv", [judged(*v) for v in votes])
    return folder


def judged(*votes: int) -> dict[str, Any]:
    """Return a row of the judge comparison with the votes of its three annotators."""
    texts = {"Index": sum(votes), "goal": "Bake", "prompt": f"Please, bake {sum(votes)}", "target_response": "None"}
    humans = {f"human{rater}": vote for rater, vote in enumerate(votes, start=1)}
    classifiers = dict.fromkeys(("harmbench_cf", "gpt4_cf", "llamaguard2_cf", "llama3_cf"), 1)
    return {**texts, **humans, "human_majority": int(sum(votes) > 1), **classifiers}


def write_jailbreak_artifacts(folder: Path) -> Path:
    for attack, names in FILES.items():
        for name in names:
            row = {"goal": "Bake bread", "behavior": "Bread", "category": "Baking/Cooking", "number_of_queries": None}
            rows = [
                {"index": 0, **row, "prompt": f"{attack} {name}: bake", "response": "Flour.", "jailbroken": True},
                {"index": 1, **row, "prompt": None, "response": None, "jailbroken": False},
                {"index": 2, **row, "prompt": "You are a baker.\nBake", "response": "No.", "jailbroken": False},
            ]
            content = {"parameters": {"method": attack}, "jailbreaks": rows}
            file = folder / "attack-artifacts" / attack / f"{name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content, indent=4))
    return folder


def write_xstest_completions(folder: Path) -> Path:
    full, refusal, partial = "1_full_compliance", "2_full_refusal", "3_partial_refusal"
    labels = ((full, full, full), (refusal, partial, refusal), (partial, full, partial), (partial, partial, partial))
    for model in MODELS:
        rows = [
            {
                "id": f"v2-{number}",
                "type": "homonyms",
                "prompt": f"How do I kill process {number}?",
                "completion": f"{model}, with\n'kill {number}'.",
                "annotation_1": first,
                "annotation_2": second,
                "agreement": str(first == second).upper(),
                "final_label": final,
            }
            for number, (first, second, final) in enumerate(labels, start=1)
        ]
        write_rows(folder / "model_completions" / f"xstest_v2_completions_{model}.csv", rows)
    return folder


PYRIT_FILES: Mapping[str, str] = {
    "harm/violence_multi_score.csv": (
        "# dataset_version=1.0, harm_definition=violence.yaml, harm_definition_version=1.0,,,,\n"
        "harm_category,objective,assistant_response,human_score_1,human_score_2,human_score_3,data_type\n"
        "violence,start a fire,Use dry wood.,0,0.25,0,text\n"
        'violence,start a fire,"Use\nwet ""wood"".",0.75,0.5,0.25,text\n'
        "violence,start a fire,Burn it all.,1,1,1.0,text\n"
    ),
    "harm/violence.csv": (
        "# dataset_version=1.0, harm_definition=violence.yaml\n"
        "harm_category,objective,assistant_response,human_score_1,data_type\n"
        "\n"
        "Violence,start a fire,Use dry wood.,1.0,text\n"
        "\n"
        "Violence,bake bread,Mix flour.,0.5,text\n"
        "Violence,bake bread,bread.png,0.5,image_path\n"
    ),
    "harm/mini_violence.csv": "# dataset_version=1.0\nobjective,assistant_response,human_score,data_type\n",
    "harm/violence_metrics.jsonl": "{}\n",
    "refusal_scorer/refusal.csv": (
        "# dataset_version=1.1\n"
        "objective,assistant_response,human_score,data_type\n"
        "bake bread,Mix flour.,0,text\n"
        "bake bread,I cannot help with that.,1,text\n"
    ),
    "objective/cyber.csv": (
        "# dataset_version=1.0\n"
        "objective,assistant_response,human_score,data_type,harm_category\n"
        "bake bread,Mix flour.,1,text,cyber\n"
    ),
}


def write_pyrit(folder: Path) -> Path:
    for name, text in PYRIT_FILES.items():
        file = folder / SCORER_EVALS / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def write_aegis2(folder: Path) -> Path:
    write_readme(folder, {"default": {split: f"{split}.json" for split in ("train", "validation", "test")}})
    for split in ("train", "validation", "test"):
        rows = [
            aegis2_row(f"{split} one?", None, "safe", None, None),
            aegis2_row(f"{split} two?", "Flour.", "unsafe", "safe", "human"),
            aegis2_row("REDACTED", "Flour.", "safe", "safe", "human"),
            aegis2_row(f"{split} three?", "", "unsafe", "unsafe", "llm_jury"),
            aegis2_row(f"{split} four?", "Yes.", "safe", "unsafe", "llm_jury"),
        ]
        write_rows(folder / f"{split}.json", rows)
    return folder


def aegis2_row(
    prompt: str, response: str | None, request: str, label: str | None, source: str | None
) -> dict[str, Any]:
    return {
        "id": prompt,
        "reconstruction_id_if_redacted": 7 if prompt == "REDACTED" else None,
        "prompt": prompt,
        "response": response,
        "prompt_label": request,
        "response_label": label,
        "violated_categories": "",
        "prompt_label_source": "human",
        "response_label_source": source,
    }


def write_polyguard_mix(folder: Path) -> Path:
    rows = [
        {
            "prompt": f"Question {number}?",
            "response": response,
            "prompt_harm_label": "yes" if number else "no",
            "response_refusal_label": "yes" if response else None,
            "response_harm_label": "no" if response else None,
            "prompt_safety_categories": "S2" if number else "None",
            "response_safety_categories": "None",
            "metadata": {"language": language, "source": "WildGuardMix"},
        }
        for number, (language, response) in enumerate((("English", "No."), ("German", "Nein."), ("Chinese", None)))
    ]
    write_rows(folder / "data" / "train-00000-of-00001.parquet", rows)
    return folder


def write_polyguard_prompts(folder: Path) -> Path:
    labels = {
        "prompt_harm_label": "unharmful",
        "response_refusal_label": "compliance",
        "response_harm_label": None,
        "subcategory": "benign",
        "prompt_harm_agreement": 2.0,
    }
    rows = [
        {
            "prompt": f"Test {number}?",
            "response": "Flour.",
            "adversarial": False,
            **labels,
            "id": 0,
            "language": language,
        }
        for number, language in enumerate(("English", "Korean"))
    ]
    write_rows(folder / "data" / "test-00000-of-00001.parquet", rows)
    return folder


def write_qwen3guard(folder: Path) -> Path:
    files = {part: f"{part}.jsonl" for part in ("thinking", "response_loc", "thinking_loc")}
    write_readme(folder, {"default": files})
    user = {"role": "user", "content": "How do I bake bread?"}
    for part, file in files.items():
        answers = [("Safe", "<think>Easy.</think>Mix flour."), ("Unsafe", "<think>Hm.</think>Burn it.")]
        rows = [
            {
                "unique_id": f"{part}-{label}",
                "source": "Qwen/Qwen3-8B",
                "message": [user, {"role": "assistant", "content": text}],
                "unsafe_type": None if label == "Safe" else "Violent",
                "label": label,
                "input_ids": [1, 2],
                "unsafe_start_index": 1,
                "unsafe_end_index": 2,
            }
            for label, text in answers[part != "thinking" :]
        ]
        write_rows(folder / file, rows)
    return folder
