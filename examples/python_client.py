"""From a photo and a prompt to a PNG.

UMRGEN_URL=… UMRGEN_API_KEY=… python python_client.py photo.jpg picture.png
"""

import sys

from umrgen_client import Client, Job, JobFailed, Refused


def show(job: Job) -> None:
    """Called at every change and each second."""
    step = f", step {job.progress.step} of {job.progress.steps}" if job.progress else ""
    print(f"{job.state}{step}")


def main(photo: str, picture: str) -> None:
    """One call uploads, submits, waits and fetches; two more show the steps by themselves."""
    with Client() as client:
        first = client.run(
            "a circle in the colour of the reference", references=[photo], width=256, height=256, on_progress=show
        )
        print("saved:", first.save(picture))

        job = client.generate("the reference on a green background", references=[first], seed=7, width=256, height=256)
        print("accepted:", job.id)
        done = job.wait(timeout_s=300)
        print("second picture:", done.image_url, f"in {done.timings['total']:.1f} s")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except JobFailed as error:
        sys.exit(f"the job failed: {error.message}" + (" (try again)" if error.retryable else ""))
    except Refused as error:
        sys.exit(f"refused: {error.message}")
