"""A tiny engine: it answers 200 to anything at once, so that what remains is the way to it."""

from __future__ import annotations

import sys

from aiohttp import web

ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 0,
    "model": "tiny",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello there."}}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
}


async def answer(request: web.Request) -> web.Response:
    await request.read()
    return web.json_response(ANSWER)


if __name__ == "__main__":
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
