from __future__ import annotations

import gzip
import json
import zlib

import pytest

from tests.api.conftest import Server, StartServer
from tests.api.test_common import Answer
from tests.api.test_status import ask

GENERATE = "/api/v1/generate"
LIMIT_BYTES = 64 * 1024


async def post(server: Server, body: bytes, **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await server.call("POST", GENERATE, data=body, headers={"Content-Type": "application/json", **names})


def padded(size: int) -> bytes:
    """A good request of exactly `size` bytes."""
    return b'{"prompt": "a star"}'.ljust(size)


NOT_AN_OBJECT = {
    "nothing": b"",
    "white space": b" \n\t ",
    "cut short": b'{"prompt": "a star"',
    "two objects": b"{}{}",
    "an array": b'[{"prompt": "a star"}]',
    "a string": b'"a star"',
    "a number": b"1",
    "null": b"null",
    "bad UTF-8": b'{"prompt": "\xff\xfe"}',
    "half a character": b'{"prompt": "\xc3"}',
    "UTF-8 of a surrogate": b'{"prompt": "\xed\xa0\x80"}',
    "UTF-16": '{"prompt": "a star"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"prompt": "a star"}',
    "NaN": b'{"prompt": "a star", "seed": NaN}',
    "Infinity": b'{"prompt": "a star", "seed": Infinity}',
    "minus Infinity": b'{"prompt": "a star", "unknown": [-Infinity]}',
    "a huge integer": b'{"prompt": "a star", "seed": ' + b"9" * 5000 + b"}",
    "a huge integer where nobody looks": b'{"prompt": "a star", "unknown": {"x": [-' + b"9" * 5000 + b"]}}",
    "half of a surrogate pair": b'{"prompt": "\\ud800"}',
    "half of a pair in a name": b'{"prompt": "a star", "\\udfff": 1}',
    "half of a pair deep inside": b'{"prompt": "a star", "unknown": [{"x": "\\udc00\\ud800"}]}',
    "arrays without end": b"[" * 60_000,
    "deep arrays": b"[" * 32_000 + b"]" * 32_000,
    "deep arrays in a field": b'{"prompt": ' + b"[" * 32_000 + b"]" * 32_000 + b"}",
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "a control character": b'{"prompt": "a\nstar"}',
    "a trailing comma": b'{"prompt": "a star",}',
    "a form": b"prompt=a+star",
}


async def test_what_is_not_one_json_object_is_invalid_json(server: Server) -> None:
    answers = {name: await post(server, body) for name, body in NOT_AN_OBJECT.items()}
    assert {name: (answer[0], answer[1]["code"]) for name, answer in answers.items()} == dict.fromkeys(
        NOT_AN_OBJECT, (400, "invalid_json")
    )


async def test_the_message_tells_nothing_of_the_interpreter(server: Server) -> None:
    for body in NOT_AN_OBJECT.values():
        _, answer, _ = await post(server, body)
        assert not any(word in answer["message"] for word in ("sys.", "set_int_max", "utf-8-sig", "Traceback"))


@pytest.mark.parametrize("nested", [31, 32])
async def test_an_object_may_be_32_deep(server: Server, nested: int) -> None:
    body = b'{"prompt": "a star", "unknown": ' + b"[" * nested + b"]" * nested + b"}"
    status, answer, _ = await post(server, body)
    assert (status, answer.get("code")) == ((202, None) if nested == 31 else (400, "invalid_json"))


async def test_a_body_may_have_64_kib_and_no_byte_more(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 9})
    assert (await post(server, padded(LIMIT_BYTES)))[0] == 202
    for size in (LIMIT_BYTES + 1, 1_000_000):
        status, answer, _ = await post(server, padded(size))
        assert (status, answer["code"]) == (413, "request_too_large")


async def test_a_body_in_chunks_is_counted_as_it_comes(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 9})

    async def chunks(size: int):
        yield padded(size - 1)
        yield b" "

    headers = {"Content-Type": "application/json"}
    assert (await server.call("POST", GENERATE, data=chunks(LIMIT_BYTES), headers=headers))[0] == 202
    status, answer, _ = await server.call("POST", GENERATE, data=chunks(LIMIT_BYTES + 1), headers=headers)
    assert (status, answer["code"]) == (413, "request_too_large")


MEDIA_TYPES = [
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/jsonp",
    "application/json-seq",
    "json",
    "",
]


async def test_another_media_type_is_refused(server: Server) -> None:
    for media_type in [*MEDIA_TYPES, "multipart/form-data; boundary=B", "application/json, text/plain"]:
        status, answer, _ = await post(server, padded(50), Content_Type=media_type)
        assert (status, answer["code"]) == (415, "unsupported_media_type"), media_type


async def test_a_media_type_with_odd_parameters_never_breaks_the_server(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 99})
    for parameters in (
        "; charset=bogus",
        ";charset=utf-16",
        "; charset",
        ";;;",
        '; charset="',
        "; ä=ö",
        "; =",
        ";" * 999,
    ):
        status, answer, _ = await post(server, padded(50), Content_Type=f"application/json{parameters}")
        assert status in (202, 415), (parameters, answer)


async def test_the_media_type_is_matched_without_case(server: Server) -> None:
    assert (await post(server, padded(50), Content_Type="Application/JSON; charset=UTF-8"))[0] == 202


async def test_any_content_encoding_is_refused(server: Server) -> None:
    body = padded(50)
    encoded = {"gzip": gzip.compress(body), "deflate": zlib.compress(body), "br": body, "GZIP": body, "none": body}
    for encoding, sent in {**encoded, "gzip, gzip": body, "zstd": body}.items():
        status, answer, _ = await post(server, sent, Content_Encoding=encoding)
        assert (status, answer["code"]) == (415, "unsupported_media_type"), encoding


async def test_a_whole_number_with_a_fraction_of_zero_is_an_integer(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 9})
    for number in ("1024.0", "1024", "1.024e3", "1024.000"):
        status, answer, _ = await post(server, f'{{"prompt": "a star", "width": {number}}}'.encode())
        assert status == 202, answer
        width = (await ask(server, answer["job_id"]))["width"]
        assert (width, type(width)) == (1024, int)


NO_INTEGERS = ["true", '"1024"', "1024.5", "null", "[]", "{}", "1e400", "-1e400", "9" * 4000, "0", "2049", "-64"]


@pytest.mark.parametrize("field", ["width", "height", "steps"])
async def test_anything_else_is_no_size_and_no_number_of_steps(server: Server, field: str) -> None:
    for value in NO_INTEGERS:
        if field == "steps" and value == "null":
            continue
        status, answer, _ = await post(server, f'{{"prompt": "a star", "{field}": {value}}}'.encode())
        assert (status, answer["code"]) == (400, "invalid_request"), value
        assert [problem["field"] for problem in answer["errors"]] == [field]


async def test_characters_beyond_the_first_plane_and_nul_come_back_as_they_were_sent(start_server: StartServer) -> None:
    server = await start_server(limits={"concurrent_jobs": 99})
    for prompt in ("a 🟥 on black", "\u0000a\u0000", "'; DROP TABLE jobs --", "\U0010ffff", "{}%s\\"):
        for body in (json.dumps({"prompt": prompt}), json.dumps({"prompt": prompt}, ensure_ascii=False)):
            status, answer, _ = await post(server, body.encode())
            assert status == 202, answer
            assert (await ask(server, answer["job_id"]))["prompt"] == prompt


async def test_unknown_fields_of_any_kind_are_named_and_kept_out(server: Server) -> None:
    body = {"prompt": "a star", "": 1, "ä": None, "state": "completed", "agent_id": 2, "__proto__": {}, "a.b": []}
    status, answer, _ = await post(server, json.dumps(body).encode())
    assert status == 202
    assert answer["ignored"] == ["", "ä", "state", "agent_id", "__proto__", "a.b"]
    assert (await ask(server, answer["job_id"]))["state"] == "queued"


async def test_of_a_body_full_of_unknown_fields_the_job_keeps_few_names(server: Server) -> None:
    body = {"prompt": "a star", "x" * 10_000: 1, **{str(number): 1 for number in range(4000)}}
    status, answer, _ = await post(server, json.dumps(body).encode())
    assert (status, len(answer["ignored"]), answer["ignored"][0]) == (202, 33, "x" * 64)
    assert answer["ignored"][-1] == "and 3969 more"


async def test_the_answer_to_a_body_full_of_wrong_items_is_short(server: Server) -> None:
    for field, item in (("reference_images", "1"), ("loras", "1"), ("loras", '{"name":"a"}'), ("loras", '{"x":1}')):
        items = ",".join([item] * (60_000 // (len(item) + 1)))
        status, answer, _ = await post(server, f'{{"prompt": "a star", "{field}": [{items}]}}'.encode())
        assert (status, answer["code"]) == (400, "invalid_request")
        assert len(json.dumps(answer)) < 4096
