// What the page says, in each of its languages, and the one way in which text gets onto it: as text.
//
// An element that says something carries the key of its words, so that it can say them anew in another language.

import { english } from "./english.js";
import { russian } from "./russian.js";

const LANGUAGES = { en: english, ru: russian };
const told = new WeakMap(); // element -> the values in its words

let language = "en";
let words = english;
let plural = new Intl.PluralRules("en");
let locale = "en"; // the language, as it is spoken where the browser is
let number = new Intl.NumberFormat("en");
let collator = new Intl.Collator("en", { numeric: true });

// The wanted language, or without one the first of the browser's that the page has.
export function speak(wanted) {
  const known = [wanted, ...navigator.languages].map((tag) => tag?.slice(0, 2).toLowerCase());
  language = known.find((tag) => Object.hasOwn(LANGUAGES, tag)) ?? "en";
  locale = navigator.languages.find((tag) => tag.slice(0, 2).toLowerCase() === language) ?? language;
  words = LANGUAGES[language];
  plural = new Intl.PluralRules(language);
  number = new Intl.NumberFormat(locale);
  collator = new Intl.Collator(locale, { numeric: true });
  document.documentElement.lang = language;
  retell(document);
}

// `count` chooses the form of words that have several.
function pattern(key, values) {
  const found = words[key] ?? key;
  return typeof found === "string" ? found : found[plural.select(values.count ?? 0)] ?? found.other;
}

const parts = (key, values) => pattern(key, values).split(/\{(\w+)\}/);
const shown = (value) => (typeof value === "number" ? number.format(value) : String(value));

export const compare = (a, b) => collator.compare(a, b); // which of two texts comes first

// As a string, for titles, attributes and what is read out.
export function say(key, values = {}) {
  return parts(key, values).map((part, index) => (index % 2 ? shown(values[part]) : part)).join("");
}

// As an element's text. Each value stands for itself: a name cannot turn the direction of what follows.
export function tell(element, key, values = {}) {
  element.dataset.say = key;
  told.set(element, values);
  element.replaceChildren(...parts(key, values).map((part, index) => {
    if (index % 2 === 0) return part;
    const own = document.createElement("bdi");
    own.textContent = shown(values[part]);
    return own;
  }));
}

// As an element's name for those who do not see it.
export function label(element, key, values = {}) {
  element.dataset.label = key;
  told.set(element, values);
  element.ariaLabel = say(key, values);
}

export function retell(root) {
  for (const element of root.querySelectorAll("[data-say]")) tell(element, element.dataset.say, told.get(element));
  for (const element of root.querySelectorAll("[data-label]")) label(element, element.dataset.label, told.get(element));
  for (const element of root.querySelectorAll("[data-hint]")) element.placeholder = say(element.dataset.hint);
  for (const element of root.querySelectorAll("time[data-ms]")) date(element);
}

// A time of day, or with `day` the day.
export function time(ms, day = false) {
  const element = document.createElement("time");
  element.dataset.ms = ms;
  if (day) element.dataset.day = "";
  date(element);
  return element;
}

function date(element) {
  const when = new Date(Number(element.dataset.ms));
  const ofDay = element.dataset.day !== undefined;
  element.dateTime = ofDay ? dayOf(when) : when.toISOString();
  element.title = ofDay ? "" : when.toLocaleString(locale);
  element.textContent = ofDay ? dayName(when) : when.toLocaleTimeString(locale, { hour: "2-digit", minute: "2-digit" });
}

// The day where the reader is, as 2026-11-21.
export function dayOf(when) {
  const two = (part) => String(part).padStart(2, "0");
  return `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())}`;
}

function dayName(when) {
  const now = new Date();
  const yesterday = new Date(now.getFullYear(), now.getMonth(), now.getDate() - 1);
  if (dayOf(when) === dayOf(now)) return say("today");
  if (dayOf(when) === dayOf(yesterday)) return say("yesterday");
  const year = when.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return when.toLocaleDateString(locale, { weekday: "long", day: "numeric", month: "long", year });
}
