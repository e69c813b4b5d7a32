// The page begins: styles, the first rendering, then what the server knows.
import { render } from "preact";
import { App } from "./app";
import { begin } from "./lib/live";
import "./style/base.css";
import "./style/controls.css";
import "./style/rooms.css";
import "./style/results.css";

const root = document.getElementById("app");
if (root) {
  root.textContent = "";
  render(<App />, root);
  begin();
}
