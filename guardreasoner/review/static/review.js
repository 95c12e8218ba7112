// Keyboard control and drafts of the review page. The forms also work without this script.
"use strict";

const $ = (selector) => document.querySelector(selector);
const form = $("#rate");
const statusLine = $("#status");
const dialog = $("#keys");
const questions = form ? [...form.querySelectorAll("fieldset")] : [];
const draft = form && `draft ${form.dataset.key}`;
let marked = 0;
let confirmed = false;

function answered(question) {
  return question.querySelector(":checked");
}

function mark(index) {
  marked = index;
  questions.forEach((question, position) => question.classList.toggle("marked", position === index));
}

// Mark a question and focus it, so that a screen reader reads it.
function goTo(index) {
  mark(index);
  const question = questions[index];
  (answered(question) || question.querySelector("input")).focus({ preventScroll: true });
  question.scrollIntoView({ block: "nearest" });
}

function choose(question, value) {
  const input = [...question.querySelectorAll("input")].find((candidate) => candidate.value === value);
  if (!input) return false;
  input.checked = true;
  storeDraft();
  return true;
}

function showStatus(text, open = false) {
  statusLine.textContent = text;
  statusLine.classList.toggle("open", open);
}

// Store unsaved entries, so that they survive going to another record, a reload, or a stopped server.
function storeDraft() {
  confirmed = false;
  const filled = [...new FormData(form)].filter(([name, value]) => name !== "token" && value !== "");
  sessionStorage.setItem(draft, JSON.stringify(filled));
}

function restoreDraft() {
  sessionStorage.removeItem(`draft ${statusLine.dataset.saved}`);
  const stored = sessionStorage.getItem(draft);
  if (stored === null) return;
  const values = new Map(JSON.parse(stored));
  for (const input of form.querySelectorAll("input[type=radio]")) input.checked = values.get(input.name) === input.value;
  form.elements.note.value = values.get("note") || "";
  if (!statusLine.textContent.trim()) showStatus("Not saved yet.", true);
}

function checkComplete(event) {
  const open = questions.filter((question) => !answered(question));
  if (open.length === questions.length) {
    event.preventDefault();
    showStatus("Nothing is rated yet. Press s to skip the record.", true);
  } else if (open.length && !confirmed) {
    event.preventDefault();
    confirmed = true;
    goTo(questions.indexOf(open[0]));
    showStatus(`${open.length} of ${questions.length} questions are open. Press Enter again to save anyway.`, true);
  }
}

function follow(selector) {
  const link = $(selector);
  if (link) link.click();
  else showStatus("There are no more records.", true);
}

const keys = {
  y: () => answerMarked("yes"),
  n: () => answerMarked("no"),
  x: clearMarked,
  j: () => follow("a[rel=next]"),
  k: () => follow("a[rel=prev]"),
  s: () => $("#skip")?.requestSubmit(),
  u: () => $("#undo").requestSubmit(),
  w: () => form?.elements.note.focus(),
  f: () => $("#filter select").focus(),
  g: () => { if ($("#gold")) $("#gold").open = !$("#gold").open; },
  "?": () => dialog.showModal(),
  Enter: () => form?.requestSubmit(),
};

function answerMarked(value) {
  if (questions.length && choose(questions[marked], value)) goTo(Math.min(marked + 1, questions.length - 1));
}

// Choose the label with a number in the marked question. Returns false if there is none.
function chooseLabel(key) {
  const input = questions[marked]?.querySelector(`input[name^="label."][data-key="${CSS.escape(key)}"]`);
  if (!input || !choose(questions[marked], input.value)) return false;
  goTo(Math.min(marked + 1, questions.length - 1));
  return true;
}

function clearMarked() {
  const input = questions.length && answered(questions[marked]);
  if (!input) return;
  input.checked = false;
  storeDraft();
}

function chooseBetter(key) {
  const last = questions[questions.length - 1];
  const inputs = last ? [...last.querySelectorAll("input[name=better]")] : [];
  const input = inputs.find((candidate) => candidate.dataset.key === key);
  if (!input) return false;
  choose(last, input.value);
  goTo(questions.length - 1);
  return true;
}

// Scroll all answers together. Returns false if none of them moved, so that the page scrolls instead.
function scrollAnswers(direction) {
  const texts = [...document.querySelectorAll(".answers .text")];
  const before = texts.map((text) => text.scrollTop);
  for (const text of texts) text.scrollBy(0, direction * 0.85 * text.clientHeight);
  return texts.some((text, index) => text.scrollTop !== before[index]);
}

document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (target.matches("textarea")) {
    if (event.key === "Escape") target.blur();
    if (event.key === "Enter" && event.ctrlKey) form.requestSubmit();
    return;
  }
  if (dialog.open || event.ctrlKey || event.altKey || event.metaKey) return;
  if (target.matches("select")) {
    if (event.key === "Escape") target.blur();
    if (event.key === "Enter") $("#filter").requestSubmit();
    return;
  }
  const direction = { PageDown: 1, PageUp: -1 }[event.key];
  if (direction && !target.matches(".text") && scrollAnswers(direction)) event.preventDefault();
  if (event.repeat) return;
  if (event.key === "Enter" && target.matches("a, button, summary, #filter *")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (chooseBetter(key) || chooseLabel(key)) event.preventDefault();
  else if (keys[key]) {
    event.preventDefault();
    keys[key]();
  }
});

$("#help").addEventListener("click", () => dialog.showModal());
$("#gold")?.addEventListener("toggle", (event) => sessionStorage.setItem("gold", event.currentTarget.open ? "1" : ""));
if (form) {
  if ($("#gold")) $("#gold").open = sessionStorage.getItem("gold") === "1";
  restoreDraft();
  form.addEventListener("input", storeDraft);
  form.addEventListener("submit", checkComplete);
  form.addEventListener("focusin", (event) => {
    const index = questions.indexOf(event.target.closest("fieldset"));
    if (index >= 0) mark(index);
  });
  const open = questions.findIndex((question) => !answered(question));
  mark(open < 0 ? 0 : open);
}
