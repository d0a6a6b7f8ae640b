static const char table[24000] = "a table that packs well";
void _start(void) {
    const char *t = table; long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(1), "D"(1), "S"(t), "d"(23) : "rcx", "r11", "memory");
    __asm__ volatile("syscall" : "=a"(r) : "a"(60), "D"(0) : "rcx", "r11");
}
