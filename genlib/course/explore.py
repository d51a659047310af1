"""What a learner explores with functions of their own: the kernel answers where there is one, the page elsewhere."""

import copy
import html
import math

import ipywidgets as widgets
import torch

from genlib.course.checks import _text
from genlib.course.live import Drawing, Noise, Pad, _picture, _split, live


def explore(function, *controls, view, name: str, alt: str, precision="fp16") -> "Explore":
    """As :func:`genlib.course.live.live` without ``steps``, but in a kernel the controls call ``function`` itself.

    So ``function`` may do what a page cannot repeat: the page then shows a picture. What goes wrong in it is told in a
    line where the picture was. Raises as ``live`` does for any other argument.
    """
    if any(isinstance(control, Drawing) for control in controls):
        raise TypeError(f"controls: expected Slider, Pad or Noise, got {controls!r}")
    try:
        page = live(function, *controls, view=view, name=name, alt=alt, precision=precision)
    except (Exception, SystemExit) as error:
        about = str(error).split(":")[0]
        if not callable(function) or about in ("controls", "view", "name", "alt", "precision"):
            raise
        page = None  # the function fails, which the widgets tell, or the page cannot repeat it
    return Explore(function, controls, view if isinstance(view, tuple) else (view,), name, alt, page)


class Explore:
    """What :func:`explore` returns: an output with widgets where a kernel runs, and what the page shows elsewhere."""

    def __init__(self, function, controls, views, name, alt, page):
        self.function, self.controls, self.views = function, [copy.copy(control) for control in controls], views
        self.name, self.alt, self.page, self.picture = name, alt, page, widgets.HTML()
        self.box = widgets.VBox([*sum(map(self._widgets, self.controls), []), self.picture])
        self._show()

    def _widgets(self, control) -> list:
        """The widgets of one control. The front end holds a change back until the one before is answered."""
        if isinstance(control, Noise):
            button = widgets.Button(description=control.label)
            button.on_click(lambda _: self._show(control))
            return [button]
        pad, log = isinstance(control, Pad), getattr(control, "log", False)
        kind, scale = (widgets.FloatLogSlider, math.log10) if log else (widgets.FloatSlider, float)
        low, high = scale(control.low), scale(control.high)
        style = {"min": low, "max": high, "step": getattr(control, "step", None) or (high - low) / 200}
        style |= {"readout_format": ".3g", "style": {"description_width": "initial"}, "layout": {"width": "400px"}}
        pairs = zip(control.labels, control.value, strict=True) if pad else [(control.label, control.value)]
        sliders = [kind(value=value, description=label, **style) for label, value in pairs]
        for slider in sliders:
            slider.observe(lambda _: self._show(control, sliders), "value")
        return sliders

    def _show(self, control=None, sliders=()) -> None:
        """Change the control, if one is given, call the function, and show what it gives or what went wrong."""
        if sliders:
            values = [slider.value for slider in sliders]
            vars(control)["value"] = values if len(values) > 1 else values[0]
        elif control:
            control.seed += 1
        self.png = None
        try:
            with torch.no_grad():
                found = self.function(*(control.start() for control in self.controls))
            parts, says = _split(found, self.views)
            self.png = _picture(self.views, parts, self.controls, says)
            size = "width: 580px; max-width: 100%"
            shown = f'<img alt="{html.escape(self.alt)}" style="{size}" src="data:image/png;base64,{self.png}">'
        except (Exception, SystemExit) as error:
            text = html.escape(f"{type(error).__name__}: {_text(error)}")
            shown = f'<p role="alert">No picture: <code>{text}</code></p>'
        self.picture.value = shown

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        bundle = self.page._repr_mimebundle_() if self.page else {"text/html": self.picture.value}
        bundle |= {"image/png": self.png} if self.png else {}
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        return bundle | {"text/plain": f"<explore {self.name}>", "application/vnd.jupyter.widget-view+json": view}
