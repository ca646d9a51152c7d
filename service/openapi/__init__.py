"""The API's OpenAPI document, and the pages that show it."""
