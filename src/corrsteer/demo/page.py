"""The page: what is on it, and which event asks for what. Needs gradio.

Changes when the page is laid out in another way.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from pydantic import TypeAdapter, ValidationError, validate_call

from corrsteer.demo import fragments
from corrsteer.demo.exhibits import Exhibit
from corrsteer.demo.session import Frame, Session, Shelf, Wish
from corrsteer.errors import CorrSteerError, DataError
from corrsteer.report.drawing import DARK, LIGHT

NOTHING = ""
"""The value of a list of which nothing is picked."""

FRAME_SECONDS = 0.05
"""Replies are shown no oftener than this, however fast tokens come."""

PROMPT_CHARACTERS = 20_000

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""Events are the page's own, and are no API."""

NAMES = """() => {
  const group = document.querySelector("#cs-layers");
  group?.setAttribute("aria-label", "Layers that steer");
  group?.querySelector(".select-all-checkbox")?.setAttribute("aria-label", "All layers");
}"""
"""Run once the page is there: names for screen readers that gradio does not give."""

_WISH = TypeAdapter(Wish)

Update = Any
"""What gradio takes for an output."""


class Handlers:
    """What happens on the page's events; what a visitor has chosen comes with each.

    Attributes:
        shelf: the runs.
    """

    def __init__(self, shelf: Shelf):
        self.shelf = shelf

    def ask(
        self,
        session: Session,
        run: str,
        beside: str,
        prompt: str,
        layers: list[str],
        strength: float,
    ) -> Iterator[tuple[Update, Update]]:
        """Stream the replies, and a line on them."""
        shown = None
        try:
            wish = _wish(prompt, run, layers, strength, beside or None)
            for shown in paced(session.replies(self.shelf, wish)):
                yield fragments.replies(shown), fragments.note(shown)
        except CorrSteerError as error:
            kept = (
                fragments.replies(dataclasses.replace(shown, state="stopped"))
                if shown
                else gr.skip()
            )
            yield kept, fragments.failure(str(error))

    @validate_call
    def open_run(self, name: str) -> list[Update]:
        """Heading, examples, prompt, layers, strength and cards of another run."""
        exhibit = self.shelf.exhibit(name)
        return [
            fragments.heading(exhibit),
            gr.update(**_examples(exhibit)),
            _first_prompt(exhibit),
            gr.update(**_layers(exhibit)),
            gr.update(**_strength(exhibit)),
            fragments.cards(exhibit, _names(exhibit)),
        ]

    @validate_call
    def cards(self, run: str, layers: list[str]) -> str:
        """The cards, by the layers that are on."""
        return fragments.cards(self.shelf.exhibit(run), layers)

    @validate_call
    def example(self, run: str, number: str) -> Update:
        """The prompt of the example picked; nothing new where none is."""
        examples = dict(enumerate(self.shelf.exhibit(run).examples))
        picked = examples.get(int(number)) if number.isdecimal() else None
        return gr.skip() if picked is None else picked.prompt

    def stop(self, session: Session) -> None:
        """End the replies that are streaming."""
        session.stop()


def _wish(*fields: Any) -> Wish:
    """What a request asks for.

    Raises:
        DataError: a field is not of its type, so it does not come from the page.
    """
    names = [field.name for field in dataclasses.fields(Wish)]
    try:
        return _WISH.validate_python(dict(zip(names, fields, strict=True)))
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{first['loc'][0]}: {first['msg']}; reload the page") from error


def build(shelf: Shelf) -> gr.Blocks:
    """The page of some runs; it opens with the first."""
    handlers, first = Handlers(shelf), shelf.first
    with gr.Blocks(title="CorrSteer demo", analytics_enabled=False, fill_width=True) as page:
        session = gr.State(Session())
        heading = _ours(fragments.heading(first), "cs-heading")
        run, beside = _choice_of_runs(shelf)
        with gr.Row(elem_id="cs-desk"):
            with gr.Column(elem_id="cs-controls"):
                example = gr.Dropdown(**_examples(first), interactive=True, filterable=False)
                prompt = _prompt(first)
                with gr.Row(elem_id="cs-buttons"):
                    ask = gr.Button("Reply", variant="primary")
                    stop = gr.Button("Stop")
                layers = gr.CheckboxGroup(
                    **_layers(first), show_select_all=True, elem_id="cs-layers"
                )
                strength = gr.Slider(**_strength(first))
            with gr.Column(elem_id="cs-answers"):
                answers = [_ours("", "cs-replies-box"), _ours("", "cs-note-box")]
        cards = _ours(fragments.cards(first, _names(first)), "cs-cards-box")

        asking: dict[str, Any] = {
            "fn": handlers.ask,
            "inputs": [session, run, beside, prompt, layers, strength],
            "outputs": answers,
            "trigger_mode": "multiple",  # a newer request ends the one before
            "concurrency_limit": None,
            **PRIVATE,
        }
        quick: dict[str, Any] = {"queue": False, **PRIVATE}
        gr.on(
            [ask.click, prompt.submit, layers.input, strength.input, beside.input, page.load],
            **asking,
        )
        opened = [heading, example, prompt, layers, strength, cards]
        run.input(handlers.open_run, run, opened, **quick).then(**asking)
        example.input(handlers.example, [run, example], prompt, **quick).then(**asking)
        layers.input(handlers.cards, [run, layers], cards, **quick)
        stop.click(handlers.stop, session, None, **quick)
    return page


def look() -> dict[str, Any]:
    """Theme, style sheet and head, as gradio takes them where a page is served."""
    return {
        "theme": _theme(),
        "css": _colours() + (Path(__file__).parent / "templates" / "demo.css").read_text("utf-8"),
        "js": NAMES,
        "footer_links": [],
        "run_history": False,  # it would keep prompts in the browser
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "enable_monitoring": False,
        "max_file_size": "1kb",  # nothing is uploaded
    }


def paced(frames: Iterator[Frame], seconds: float = FRAME_SECONDS) -> Iterator[Frame]:
    """Not more frames than one in so many seconds; the last of each state is never left out."""
    shown = -seconds
    for frame in frames:
        if frame.state != "running" or time.monotonic() - shown >= seconds:
            shown = time.monotonic()
            yield frame


def _ours(html: str, name: str) -> gr.HTML:
    """A place for a fragment, under our style sheet alone."""
    return gr.HTML(html, elem_id=name, apply_default_css=False, js_on_load=None)


def _choice_of_runs(shelf: Shelf) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Which run steers, and which is shown beside it; not there for a single run."""
    with gr.Row(elem_id="cs-runs", visible=len(shelf.exhibits) > 1):
        run = gr.Dropdown(_runs(shelf), value=shelf.first.name, label="Run", filterable=False)
        beside = gr.Dropdown(
            [("nothing", NOTHING), *_runs(shelf)],
            value=NOTHING,
            label="Beside it, whole and at its own strength",
            filterable=False,
        )
    return run, beside


def _prompt(exhibit: Exhibit) -> gr.Textbox:
    return gr.Textbox(
        _first_prompt(exhibit),
        label="Prompt (Shift + Enter asks)",
        lines=4,
        max_lines=14,
        max_length=PROMPT_CHARACTERS,
    )


def _runs(shelf: Shelf) -> list[tuple[str, str]]:
    return [(exhibit.label, name) for name, exhibit in shelf.exhibits.items()]


def _names(exhibit: Exhibit) -> list[str]:
    return [switch.hook_point.name for switch in exhibit.switches]


def _first_prompt(exhibit: Exhibit) -> str:
    return exhibit.examples[0].prompt if exhibit.examples else ""


def _examples(exhibit: Exhibit) -> dict[str, Any]:
    labels = [each.label for each in exhibit.examples]
    choices: Sequence[tuple[str, str]] = [(text, str(at)) for at, text in enumerate(labels)]
    return {
        "choices": list(choices),
        "value": "0" if choices else None,
        "label": "Test samples that steering changed",
    }


def _layers(exhibit: Exhibit) -> dict[str, Any]:
    return {
        "choices": [(switch.label, switch.hook_point.name) for switch in exhibit.switches],
        "value": _names(exhibit),
        "label": "Layers that steer",
    }


def _strength(exhibit: Exhibit) -> dict[str, Any]:
    own = exhibit.run.steering.strength
    return {
        "minimum": min(0.0, own),
        "maximum": exhibit.widest_strength,
        "step": 0.05,
        "value": own,
        "label": f"Strength (recommended: {own:g})",
    }


def _colours() -> str:
    """The report's colours as variables of the page, light and dark."""
    return "".join(
        f"{where} {{ {''.join(f'--{role}: {colour}; ' for role, colour in roles.items())} }}\n"
        for where, roles in ((":root", LIGHT), (".dark", DARK))
    )


def _theme() -> gr.themes.Base:
    """Gradio's plain theme in the report's colours; its fonts are those of the system."""
    sans = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono"]
    values = {
        "body_background_fill": "paper",
        "body_text_color": "ink",
        "body_text_color_subdued": "muted",
        "background_fill_primary": "paper",
        "background_fill_secondary": "card",
        "border_color_primary": "rule",
        "border_color_accent": "A",
        "block_label_text_color": "muted",
        "block_title_text_color": "ink",
        "block_info_text_color": "muted",
        "input_background_fill": "paper",
        "input_background_fill_focus": "paper",
        "input_background_fill_hover": "paper",
        "input_border_color": "band",
        "input_border_color_focus": "A",
        "input_border_color_hover": "band2",
        "input_placeholder_color": "muted",
        "button_primary_background_fill": "A",
        "button_primary_background_fill_hover": "A",
        "button_primary_text_color": "paper",
        "button_primary_text_color_hover": "paper",
        "button_secondary_background_fill": "card",
        "button_secondary_background_fill_hover": "rule",
        "button_secondary_text_color": "ink",
        "checkbox_background_color_selected": "A",
        "checkbox_border_color": "band2",
        "checkbox_border_color_selected": "A",
        "checkbox_label_background_fill": "paper",
        "checkbox_label_background_fill_hover": "card",
        "checkbox_label_background_fill_selected": "card",
        "checkbox_label_border_color": "band",
        "checkbox_label_border_color_selected": "A",
        "checkbox_label_text_color": "ink",
        "checkbox_label_text_color_selected": "ink",
        "slider_color": "A",
        "link_text_color": "A",
    }
    both = {
        name + ending: f"var(--{role})" for name, role in values.items() for ending in ("", "_dark")
    }
    plain = {
        "block_background_fill": "transparent",
        "block_background_fill_dark": "transparent",
        "input_border_width": "1px",
        "input_border_width_dark": "1px",
        "checkbox_label_border_width": "1px",
        "checkbox_label_border_width_dark": "1px",
        "block_border_width": "0px",
        "block_shadow": "none",
        "block_padding": "0",
        "input_radius": "8px",
        "button_large_radius": "8px",
        "input_shadow": "none",
        "input_shadow_focus": "none",
        "button_primary_shadow": "none",
        "button_secondary_shadow": "none",
        "checkbox_label_shadow": "none",
    }
    return gr.themes.Base(font=sans, font_mono=mono).set(**both, **plain)
