"""The OpenAI Images API over the same queue, keys and limits (https://developers.openai.com/api/reference/resources/images)."""
