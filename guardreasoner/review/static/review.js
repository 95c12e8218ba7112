// Keys for the review page. Without this file its forms work as they are; this only fills them in and sends them.
"use strict";

const $ = (selector) => document.querySelector(selector);
const form = $("#rate");
const said = $("#status");
const dialog = $("#keys");
const questions = form ? [...form.querySelectorAll("fieldset")] : [];
const draft = form && `draft ${form.dataset.key}`;
let marked = 0;
let confirmed = false;

function answered(question) {
  return question.querySelector(":checked");
}

function mark(place) {
  marked = place;
  questions.forEach((question, at) => question.classList.toggle("marked", at === place));
}

// Mark a question and go there: what has the focus is what a screen reader reads.
function goTo(place) {
  mark(place);
  const question = questions[place];
  (answered(question) || question.querySelector("input")).focus({ preventScroll: true });
  question.scrollIntoView({ block: "nearest" });
}

function choose(question, value) {
  const input = [...question.querySelectorAll("input")].find((one) => one.value === value);
  if (!input) return false;
  input.checked = true;
  changed();
  return true;
}

function say(text, open = false) {
  said.textContent = text;
  said.classList.toggle("open", open);
}

// What is filled in and not saved outlives a look at another record, a reload, and a server that was stopped.
function changed() {
  confirmed = false;
  const filled = [...new FormData(form)].filter(([name, value]) => name !== "token" && value !== "");
  sessionStorage.setItem(draft, JSON.stringify(filled));
}

function restore() {
  sessionStorage.removeItem(`draft ${said.dataset.done}`);
  const kept = sessionStorage.getItem(draft);
  if (kept === null) return;
  const values = new Map(JSON.parse(kept));
  for (const input of form.querySelectorAll("input[type=radio]")) input.checked = values.get(input.name) === input.value;
  form.elements.note.value = values.get("note") || "";
  if (!said.textContent.trim()) say("Not saved yet.", true);
}

function check(event) {
  const open = questions.filter((question) => !answered(question));
  if (open.length === questions.length) {
    event.preventDefault();
    say("Nothing is rated yet; s skips the record.", true);
  } else if (open.length && !confirmed) {
    event.preventDefault();
    confirmed = true;
    goTo(questions.indexOf(open[0]));
    say(`${open.length} of ${questions.length} questions are open; Enter again saves it so.`, true);
  }
}

function follow(selector) {
  const link = $(selector);
  if (link) link.click();
  else say("There is no further record.", true);
}

const keys = {
  y: () => reply("yes"),
  n: () => reply("no"),
  x: clear,
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

function reply(value) {
  if (questions.length && choose(questions[marked], value)) goTo(Math.min(marked + 1, questions.length - 1));
}

function clear() {
  const input = questions.length && answered(questions[marked]);
  if (!input) return;
  input.checked = false;
  changed();
}

function better(key) {
  const last = questions[questions.length - 1];
  const inputs = last ? [...last.querySelectorAll("input[name=better]")] : [];
  const input = inputs.find((one) => one.value[0].toLowerCase() === key);
  if (!input) return false;
  choose(last, input.value);
  goTo(questions.length - 1);
  return true;
}

// Scroll the answers side by side; at their end, and where they need no scrolling, the page.
function scrollAnswers(direction) {
  const texts = [...document.querySelectorAll(".answers .text")];
  const before = texts.map((text) => text.scrollTop);
  for (const text of texts) text.scrollBy(0, direction * 0.85 * text.clientHeight);
  return texts.some((text, place) => text.scrollTop !== before[place]);
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
  if (better(key)) event.preventDefault();
  else if (keys[key]) {
    event.preventDefault();
    keys[key]();
  }
});

$("#help").addEventListener("click", () => dialog.showModal());
$("#gold")?.addEventListener("toggle", (event) => sessionStorage.setItem("gold", event.currentTarget.open ? "1" : ""));
if (form) {
  if ($("#gold")) $("#gold").open = sessionStorage.getItem("gold") === "1";
  restore();
  form.addEventListener("input", changed);
  form.addEventListener("submit", check);
  form.addEventListener("focusin", (event) => {
    const place = questions.indexOf(event.target.closest("fieldset"));
    if (place >= 0) mark(place);
  });
  const open = questions.findIndex((question) => !answered(question));
  mark(open < 0 ? 0 : open);
}
