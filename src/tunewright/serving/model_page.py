"""Write the page to try a model in a browser, which talks to its own server alone."""

from __future__ import annotations

from html import escape

from tunewright.report.style import style_sheet

FIELDS = {
    "text": '<label for="text">Text</label><textarea id="text" rows="4"></textarea>',
    "user": '<label for="text">User</label><input id="text">',
    "rows": '<label for="text">A row as JSON</label><textarea id="text" rows="4">{}</textarea>',
    "picture": '<label for="file">An image: choose it, or drop it on this page</label><input id="file" type="file" accept="image/*">',
    "sound": '<label for="file">A recording</label><input id="file" type="file" accept="audio/*">',
}
SCRIPT = """
const kind = document.body.dataset.kind, out = document.getElementById('out'), say = document.getElementById('say');
const token = document.getElementById('token');
async function send(body, type) {
  out.textContent = '…';
  const headers = {'Content-Type': type};
  if (token.value) headers['Authorization'] = 'Bearer ' + token.value;
  try {
    const answer = await fetch('/predict', {method: 'POST', headers, body});
    const found = await answer.json();
    out.textContent = JSON.stringify(found.predictions ? found.predictions[0] : found, null, 1);
    say.textContent = answer.ok ? '' : 'refused';
  } catch (error) { out.textContent = ''; say.textContent = 'no answer: ' + error; }
}
function sendFile(file) { if (file) send(file, file.type || (kind === 'picture' ? 'image/png' : 'audio/wav')); }
document.getElementById('form').addEventListener('submit', event => {
  event.preventDefault();
  if (kind === 'picture' || kind === 'sound') { sendFile(document.getElementById('file').files[0]); return; }
  const text = document.getElementById('text').value;
  let input = text;
  if (kind === 'rows') { try { input = JSON.parse(text); } catch (error) { say.textContent = 'this is no JSON'; return; } }
  send(JSON.stringify({inputs: [input]}), 'application/json');
});
document.addEventListener('dragover', event => event.preventDefault());
document.addEventListener('drop', event => { event.preventDefault(); sendFile(event.dataTransfer.files[0]); });
"""


def try_page(name: str, kind: str) -> str:
    """Return the page for a model with this kind of input; it runs SCRIPT."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>{escape(name)}</title><style>{style_sheet()}
textarea, input {{ font: inherit; width: 100%; box-sizing: border-box; margin: .3em 0 1em }}
button {{ font: inherit; padding: .4em 1.4em }} pre {{ white-space: pre-wrap; overflow-wrap: anywhere }}</style></head>
<body data-kind="{kind}"><div class="page"><h1>{escape(name)}</h1><main>
<form id="form">{FIELDS[kind]}<p><button>Ask</button></p>
<details><summary>Token</summary><input id="token" type="password" autocomplete="off" aria-label="token"></details></form>
<p id="say" role="status"></p><pre id="out" aria-live="polite"></pre>
<p class="quiet">The API is described at <a href="/docs">/docs</a>.</p></main></div><script>{SCRIPT}</script></body></html>
"""
