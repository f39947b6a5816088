"""Write the page of `tunewright ui`: a live table of runs, and the curves of the selected ones."""

from __future__ import annotations

import json
from importlib.resources import files

from tunewright.report.style import style_sheet

WORDS = {
    "en": {
        "title": "Runs", "filter": "Filter by name, task, data or model", "run": "run", "task": "task", "data": "data", "model": "model",
        "result": "result", "time": "time", "status": "status", "report": "report", "finished": "finished", "running": "running",
        "stopped": "stopped", "damaged": "damaged",
        "choose": "Choose runs to see their curves; two, and their recipes are compared.", "diff": "What differs in the recipes",
        "plan": "Foretold and real training time", "none": "No runs here yet: tunewright run RECIPE", "of": "of", "same": "The recipes are the same.",
        "other": "中文", "lang": "zh",
    },
    "zh": {
        "title": "运行", "filter": "按名称、任务、数据或模型筛选", "run": "运行", "task": "任务", "data": "数据", "model": "模型",
        "result": "结果", "time": "用时", "status": "状态", "report": "报告", "finished": "已完成", "running": "进行中",
        "stopped": "已停止", "damaged": "已损坏",
        "choose": "选择若干运行以查看曲线；选择两个时比较它们的配方。", "diff": "配方的差别",
        "plan": "预计与实际的训练时间", "none": "这里还没有运行：tunewright run RECIPE", "of": "/", "same": "配方相同。",
        "other": "English", "lang": "en",
    },
}  # fmt: skip
STYLE = """
.page { max-width: 76rem } table { width: 100%; font: .9rem/1.45 var(--sans) } td, th { text-align: left; padding: .3rem .6rem }
td.r, th.r { text-align: right } tr.chosen td { background: var(--b1) } input[type=search] { font: inherit; width: 100%; max-width: 32rem; margin: 1rem 0 }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.5rem } pre { overflow-x: auto; font-size: .8rem }
svg.curve { width: 100%; height: auto } svg.curve text { font: 11px var(--sans); fill: currentColor } .running { font-weight: 600 }
"""


def runs_script() -> str:
    """Return the script of the page."""
    return files("tunewright.serving").joinpath("runs.js").read_text(encoding="utf-8")


def runs_page(lang: str) -> str:
    """Return the page, which loads everything from its own server."""
    words = WORDS[lang]
    columns = ("run", "task", "data", "model", "result", "time", "status")
    right = ("result", "time")
    head = "".join(f'<th scope="col"{" class=r" if key in right else ""}>{words[key]}</th>' for key in columns)
    return f"""<!doctype html>
<html lang="{"zh-CN" if lang == "zh" else "en"}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>Tunewright: {words["title"]}</title><style>{style_sheet()}{STYLE}</style></head>
<body><div class="page"><h1>{words["title"]}</h1><p><a href="/?lang={words["lang"]}">{words["other"]}</a></p>
<label class="small" for="filter">{words["filter"]}</label> <span class="small" id="count" role="status"></span><br>
<input id="filter" type="search"><main>
<div class="scroll" tabindex="0" role="region" aria-label="{words["title"]}"><table>
<thead><tr><th></th>{head}<th></th></tr></thead><tbody id="rows"></tbody></table></div>
<p id="none" hidden>{words["none"]}</p><p class="small">{words["choose"]}</p>
<div class="charts" id="charts"></div><div id="plan"></div><div id="diff"></div></main></div>
<script id="words" type="application/json">{json.dumps(words, ensure_ascii=False)}</script><script>{runs_script()}</script></body></html>
"""
