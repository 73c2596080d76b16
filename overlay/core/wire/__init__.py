"""What crosses a link, and what is signed: messages, documents, their bounds and their bytes."""
