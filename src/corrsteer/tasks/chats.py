"""Chats: read from a row, or made of a prompt, for the model's own chat template.

Changes when a message may hold something else. What a row holds is given to the template as it is,
or refused: nothing of it is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from corrsteer.errors import DataError, SettingsError
from corrsteer.json_text import excerpt
from corrsteer.samples import Message, Sample
from corrsteer.tasks.base import Task

ROLES = ("system", "developer", "user", "assistant", "tool")


def as_chat(task: Task, template_options: Mapping[str, Any] | None = None) -> Task:
    """The task with every prompt, solved examples included, as one message of the user.

    Samples that are chats already keep their messages.

    Args:
        task: the task.
        template_options: what the chat template is given beside the messages.
    """
    given = template_options or {}

    def chats(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
        return tuple(_chat(sample, given) for sample in samples)

    return replace(task, fit=chats(task.fit), select=chats(task.select), test=chats(task.test))


def _chat(sample: Sample, template_options: Mapping[str, Any]) -> Sample:
    message = {"role": "user", "content": sample.prompt}
    messages = (message,) if sample.messages is None else sample.messages
    return replace(sample, prompt="", messages=messages, template_options=template_options)


def template_option(text: str) -> tuple[str, Any]:
    """Name and value of an option written as `NAME=VALUE`; a value that is no JSON is a text.

    Raises:
        SettingsError: it is written otherwise.
    """
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise SettingsError(
            f"--template-option is {text!r}; expected NAME=VALUE, as enable_thinking=false"
        )
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def written_option(name: str, value: Any) -> str:
    """An option as `template_option` reads it."""
    return f"{name}={json.dumps(value)}"


def read_messages(value: Any, where: str) -> tuple[Message, ...]:
    """The messages of a row.

    Contents that are lists of text parts become one text, and the arguments of tool calls that are
    written as JSON become objects, as chat templates expect them.

    Args:
        value: what the row holds.
        where: the row's place, for messages of errors.

    Raises:
        DataError: it is no list of messages that a model could reply to.
    """
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: `messages` is {excerpt(value)}; expected a list of messages")
    messages = tuple(_message(turn, where) for turn in value)
    if messages[-1]["role"] == "assistant":
        raise DataError(
            f"{where}: the last message is the assistant's, so the model would be shown the reply; "
            "remove that message, or give its text as `reply`, with its `score` if it was rated"
        )
    return messages


def _message(turn: Any, where: str) -> Message:
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
        raise DataError(f"{where}: a message is {excerpt(turn)}; expected role and content")
    role = turn["role"]
    if role not in ROLES:
        expected = f"{', '.join(ROLES[:-1])} or {ROLES[-1]}"
        raise DataError(f"{where}: a message has the role {excerpt(role)}; expected {expected}")
    found = {**turn, "content": _content(turn, where)}
    if "tool_calls" in turn:
        if role != "assistant":
            raise DataError(f"{where}: `tool_calls` of the {role}; only the assistant has them")
        found["tool_calls"] = _tool_calls(turn["tool_calls"], where)
    if not isinstance(turn.get("name", ""), str):
        raise DataError(f"{where}: `name` of a message is {excerpt(turn['name'])}; expected a text")
    return found


def _content(turn: dict[str, Any], where: str) -> str:
    """The text of a message; "" where it is a call of tools alone."""
    content = turn.get("content", "" if turn.get("tool_calls") else None)
    if isinstance(content, list) and content:
        return "".join(_part(part, where) for part in content)
    if not isinstance(content, str):
        raise DataError(f"{where}: a message is {excerpt(turn)}; expected role and content")
    return content


def _part(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("text") if kind == "text" else None
    if not isinstance(text, str) or len(part) > 2:
        raise DataError(
            f"{where}: a part of a message is {excerpt(part)}; only texts can be given, as "
            '{"type": "text", "text": "..."}'
        )
    return text


def _tool_calls(calls: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise DataError(f"{where}: `tool_calls` is {excerpt(calls)}; expected a list")
    return [_tool_call(call, where) for call in calls]


def _tool_call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            arguments = _json_object(arguments)
        if isinstance(arguments, dict):
            return {**call, "function": {**function, "arguments": arguments}}
    raise DataError(
        f"{where}: a tool call is {excerpt(call)}; expected "
        '{"type": "function", "function": {"name": "...", "arguments": {...}}}'
    )


def _json_object(text: str) -> Any:
    try:
        return json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return None
