from __future__ import annotations

import re
import uuid

from umrgen_core.names import (
    new_disk_name,
    new_job_id,
    new_output_filename,
    new_reference_filename,
    output_disk_name,
)


def test_a_job_id_is_a_random_uuid_behind_a_prefix() -> None:
    job_id = new_job_id()
    assert job_id.startswith("ext_")
    assert uuid.UUID(job_id[4:]).version == 4
    assert str(uuid.UUID(job_id[4:])) == job_id[4:]


def test_the_public_name_of_an_upload_holds_milliseconds_and_24_random_digits() -> None:
    assert re.fullmatch(r"image_1795000000000\d{24}\.webp", new_reference_filename(1_795_000_000_000_999, "webp"))


def test_the_public_name_of_a_picture_holds_24_random_digits() -> None:
    assert re.fullmatch(r"umrgen_\d{24}\.png", new_output_filename())


def test_the_digits_are_padded_and_never_repeat() -> None:
    names = {new_output_filename() for _ in range(3000)}  # some start with 0: one in ten
    assert len(names) == 3000
    assert {len(name) for name in names} == {len("umrgen_.png") + 24}


def test_a_name_on_disk_tells_nothing_about_its_content() -> None:
    name = new_disk_name("jpg")
    assert uuid.UUID(name.removesuffix(".jpg")).version == 4
    assert new_disk_name("jpg") != name


def test_each_fence_of_a_job_writes_a_file_of_its_own() -> None:
    assert output_disk_name("ext_0f9e", 1) == "0f9e.1.png"
    assert output_disk_name("ext_0f9e", 2) == "0f9e.2.png"
