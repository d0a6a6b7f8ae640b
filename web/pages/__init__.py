"""The pages, one module per area. Each module holds one blueprint ``bp``; ``base`` what all pages share."""
