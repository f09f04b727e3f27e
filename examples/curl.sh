#!/usr/bin/env bash
# From a photo and a prompt to a PNG with curl alone:  UMRGEN_URL=… UMRGEN_API_KEY=… ./curl.sh photo.jpg picture.png
set -euo pipefail
photo=$1 picture=$2
api="$UMRGEN_URL/api/v1"
call() { # the answer on stdout; a refusal, which says what to do, on stderr
  local answer
  answer=$(curl --silent --show-error --fail-with-body -H "Authorization: Bearer $UMRGEN_API_KEY" "$@") ||
    { echo "$answer" >&2 && return 1; }
  printf '%s' "$answer"
}
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; } # enough for these answers; use jq where you have it

reference=$(call -F "file=@$photo" "$api/upload-reference" | field filename)

# The Idempotency-Key makes it safe to send the same request again when its answer is lost.
job=$(call -H "Content-Type: application/json" -H "Idempotency-Key: $(date +%s)-$$" "$api/generate" --data @- <<JSON | field job_id
{"prompt": "a circle in the colour of the reference", "reference_images": ["$reference"], "width": 256, "height": 256}
JSON
)
echo "accepted: $job"

# One request waits for up to 30 s; it is answered the moment the job has ended.
status='' state=queued
while [ "$state" = queued ] || [ "$state" = running ]; do
  status=$(call "$api/status/$job?wait=30&until=done")
  state=$(field state <<<"$status")
done

if [ "$state" != completed ]; then
  echo "the job $state: $(field error <<<"$status")" >&2
  exit 1
fi
call --output "$picture" "$UMRGEN_URL$(field image_url <<<"$status")"
echo "saved: $picture"
