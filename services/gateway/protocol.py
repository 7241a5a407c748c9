"""What the MCP specification fixes: revisions, members of `_meta`, error codes, log levels, lists."""

from typing import Any, NamedTuple

from libs.common.decision.subjects import Kind

# Revisions sort as text.
MODERN = "2026-07-28"
LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")

# Members of `_meta` (2026-07-28, basic/index "Per-request protocol fields").
PREFIX = "io.modelcontextprotocol/"
META_VERSION = PREFIX + "protocolVersion"
META_CAPABILITIES = PREFIX + "clientCapabilities"
META_INFO = PREFIX + "clientInfo"
META_LOG_LEVEL = PREFIX + "logLevel"
META_SUBSCRIPTION = PREFIX + "subscriptionId"
META_SERVER = PREFIX + "serverInfo"

# How Lockgate names itself, and the `_meta` of modern requests of its own.
LOCKGATE = {"name": "lockgate", "version": "1"}
OWN_META: dict[str, Any] = {META_VERSION: MODERN, META_CAPABILITIES: {}, META_INFO: LOCKGATE}

# JSON-RPC 2.0, section 5.1; 2026-07-28, basic/index "Error Codes".
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
MISSING_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022
RESOURCE_NOT_FOUND = -32002  # 2025-11-25, server/resources "Error Handling"; -32602 since 2026-07-28
URL_ELICITATION_REQUIRED = -32042  # 2025-11-25 only, client/elicitation

# From most to least verbose (server/utilities/logging "Log Levels").
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

CANCELLED = "notifications/cancelled"
# 2026-07-28, basic/patterns/mrtr "Supported Requests": in answer to what a server may ask for input.
MAY_ASK = frozenset({"tools/call", "prompts/get", "resources/read"})
# 2026-07-28, basic/patterns/subscriptions.
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
# The member of a filter by which news of a list is asked for -> the notification.
LIST_CHANGES = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}
TOOLS_CHANGED = LIST_CHANGES["toolsListChanged"].encode()


class Listed(NamedTuple):
    """The member of a result that holds a list, the one of an entry that names it, and what entries are."""

    member: str
    named_by: str
    kind: Kind


LISTS = {
    "tools/list": Listed("tools", "name", "tool"),
    "prompts/list": Listed("prompts", "name", "prompt"),
    "resources/list": Listed("resources", "uri", "resource"),
    "resources/templates/list": Listed("resourceTemplates", "uriTemplate", "resource"),
}
