for (const plots of document.querySelectorAll(".plots")) {
  const at = plots.dataset.x.split("|");
  const canvases = [...plots.querySelectorAll(".canvas")];
  const keys = [...plots.querySelectorAll("[data-v]")].map((key) => {
    const value = key.querySelector("b");
    return { value, rest: value.textContent, all: key.dataset.v.split("|") };
  });
  const hairs = canvases.map(() => Object.assign(document.createElement("i"), { className: "hair" }));
  const now = Object.assign(document.createElement("i"), { className: "now" });
  const leave = () => {
    plots.classList.remove("reading");
    hairs.forEach((hair) => hair.remove());
    now.remove();
    keys.forEach((key) => { key.value.textContent = key.rest; });
  };
  const read = (canvas, event) => {
    const box = canvas.getBoundingClientRect();
    const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    const last = at.length - 1;
    const index = plots.dataset.ends ? Math.round(share * last) : Math.min(Math.floor(share * at.length), last);
    const left = 100 * (plots.dataset.ends ? index / (last || 1) : (index + 0.5) / at.length) + "%";
    plots.classList.add("reading");
    hairs.forEach((hair, i) => { hair.style.left = left; canvases[i].append(hair); });
    now.style.left = left;
    now.textContent = at[index];
    canvas.append(now);
    keys.forEach((key) => { key.value.textContent = key.all[index] || "\u2013"; });
  };
  for (const canvas of canvases) {
    canvas.addEventListener("pointermove", (event) => read(canvas, event));
    canvas.addEventListener("pointerleave", leave);
  }
}
