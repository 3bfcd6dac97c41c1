"""AdamW whose state is held in few bits or in main memory, and computed in float32."""
