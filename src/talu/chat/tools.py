"""Calls of tools, as an answer holds them."""

from dataclasses import dataclass

__all__ = ["ToolCall"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for; ``arguments`` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str

    def to_dict(self) -> dict[str, object]:
        """The call in OpenAI's form."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}
